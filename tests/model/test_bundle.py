from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rssegment.errors import BundleError, MismatchError, ModelError, OutputError, StorageError
from rssegment.leftovers import temporary_prefix
from rssegment.model import (
    Bundle,
    Calibration,
    Model,
    bundled_names,
    create_architecture,
    load_model,
    save_bundle,
    save_calibration,
)
from rssegment.model.folder import written_aside
from rssegment.taxonomy import Taxonomy
from tests.model.conftest import BANDS, CODES, PATCH, Tiny, make_spec


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound bundle of the safetensors kind; tests work on copies."""
    spec = make_spec()
    torch.manual_seed(3)
    module = create_architecture(spec.architecture, BANDS, len(CODES), **spec.architecture_options)
    colors = {10: ("field", (200, 180, 60)), 20: ("forest", (20, 100, 30)), 30: ("water", (20, 60, 200))}
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    save_bundle(path, module, spec, Taxonomy.flat("tiny", colors))
    return path


@pytest.fixture
def bundle(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "bundle"))


def edit(bundle: Path, change: Any) -> None:
    item = json.loads((bundle / "model.json").read_text())
    change(item)
    (bundle / "model.json").write_text(json.dumps(item))


def resign(bundle: Path) -> None:
    """Makes the checksum right for weights that were replaced, as an attacker would."""
    import hashlib

    def change(item: dict[str, Any]) -> None:
        asset = item["assets"]["weights"]
        asset["file:checksum"] = "1220" + hashlib.sha256((bundle / asset["href"]).read_bytes()).hexdigest()

    edit(bundle, change)


def expected(module: torch.nn.Module, values: Tensor) -> Tensor:
    spec = make_spec()
    mean = torch.tensor([b.mean for b in spec.bands]).view(1, -1, 1, 1)
    std = torch.tensor([b.std for b in spec.bands]).view(1, -1, 1, 1)
    with torch.inference_mode():
        return module.eval()((values - mean) / std).softmax(1)


def test_safetensors_bundle_gives_what_the_module_gives(
    tmp_path: Path, taxonomy: Taxonomy, values: Tensor
) -> None:
    spec = make_spec()
    module = create_architecture(spec.architecture, BANDS, len(CODES), **spec.architecture_options)
    for layer in module.modules():  # statistics that eval mode must use
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
    save_bundle(tmp_path / "b", module.train(), spec, taxonomy)
    found = load_model(tmp_path / "b")(values)
    assert found.shape == (2, 3, PATCH, PATCH)
    torch.testing.assert_close(found, expected(module, values), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.sum(1), torch.ones(2, PATCH, PATCH))


@pytest.mark.parametrize("kind", ["torchscript", "pt2", "onnx"])
@pytest.mark.filterwarnings("ignore")
def test_artifact_gives_what_the_module_gives(
    kind: str, artifact: Any, tiny: Tiny, tmp_path: Path, taxonomy: Taxonomy, values: Tensor
) -> None:
    weights, changes = artifact(kind)
    bundle = save_bundle(tmp_path / kind, weights, make_spec(architecture_options={}, **changes), taxonomy)
    model = Bundle.open(tmp_path / kind).load()
    torch.testing.assert_close(model(values), expected(tiny, values), atol=1e-5, rtol=1e-4)
    first = model(values)
    assert all(
        torch.equal(model(values), first) for _ in range(4)
    )  # no run changes the last bits of the next
    assert bundle.weights.name in {p.name for p in (tmp_path / kind).iterdir()}


def test_a_patch_does_not_depend_on_its_batch(saved: Path, values: Tensor) -> None:
    model = load_model(saved)
    assert torch.equal(model(values).flip(0), model(values.flip(0)))


def test_values_are_not_normalised_by_the_patch(saved: Path, values: Tensor) -> None:
    """A brighter neighbour far away must not change a pixel's result."""
    model = load_model(saved)
    dark = torch.full((1, BANDS, 8 * PATCH, 8 * PATCH), 100.0)
    bright = dark.clone()
    bright[..., -4:, -4:] = 255
    torch.testing.assert_close(model(dark)[..., :8, :8], model(bright)[..., :8, :8], atol=1e-6, rtol=0)


def test_channels_are_reordered_and_dropped_before_the_softmax(taxonomy: Taxonomy, values: Tensor) -> None:
    spec = make_spec(channels=(30, None, 10, 20))
    logits = torch.randn(2, 4, PATCH, PATCH)
    found = Model(lambda _: logits, spec, CODES)(values)
    assert torch.equal(found, logits[:, [2, 3, 0]].contiguous().softmax(1))


def test_probabilities_are_kept_or_shared_out(values: Tensor) -> None:
    p = torch.rand(2, 4, PATCH, PATCH).softmax(1)
    p[0, :, 0, 0] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # all in the dropped channel
    found = Model(lambda _: p, make_spec(channels=(10, None, 20, 30), output="probabilities"), CODES)(values)
    torch.testing.assert_close(found[1], p[1, [0, 2, 3]] / p[1, [0, 2, 3]].sum(0))
    torch.testing.assert_close(found[0, :, 0, 0], torch.full((3,), 1 / 3))


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (lambda x: x * float("nan"), "NaN"),
        (lambda x: x[..., :-1], "shape"),
        (lambda x: x.numpy(), "expected a tensor"),
        (lambda x: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_faulty_network_is_a_model_error(network: Any, said: str, values: Tensor) -> None:
    with pytest.raises(ModelError, match=said):
        Model(network, make_spec(), CODES)(values)


def test_logits_declared_as_probabilities_are_refused(values: Tensor) -> None:
    with pytest.raises(ModelError, match="set the bundle's output to 'logits'"):
        Model(lambda x: x, make_spec(output="probabilities"), CODES)(values)


def test_wrong_number_of_bands_is_refused(saved: Path, values: Tensor) -> None:
    with pytest.raises(MismatchError, match=r"\(B, 3, H, W\)"):
        load_model(saved)(values[:, :2])


def test_model_takes_mappings_and_tuples(values: Tensor) -> None:
    plain = Model(lambda x: x, make_spec(), CODES)(values)
    for network in (lambda x: {"out": x}, lambda x: {"logits": x}, lambda x: (x, 0)):
        assert torch.equal(Model(network, make_spec(), CODES)(values), plain)


# What is wrong with a folder


def test_unknown_bundle_lists_names(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=", ".join(bundled_names()) or "none"):
        Bundle.open("no-such-model")
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(BundleError, match="is a file; a model is a bundle"):
        Bundle.open(tmp_path / "model.pt")
    with pytest.raises(BundleError, match=r"no model\.json"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize("name", ["weights.safetensors", "taxonomy.yaml"])
def test_missing_and_changed_files(bundle: Path, name: str) -> None:
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match="changed or damaged"):
        Bundle.open(bundle)
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"lacks its file {name}"):
        Bundle.open(bundle)


@pytest.mark.parametrize("text", ["{", "[1]", "\x00", '{"a": NaN', "[" * 100_000])
def test_broken_json(bundle: Path, text: str) -> None:
    (bundle / "model.json").write_text(text)
    with pytest.raises(BundleError, match=r"model\.json"):
        Bundle.open(bundle)


def test_taxonomy_must_have_the_channels_as_leaves(bundle: Path) -> None:
    edit(bundle, lambda item: item["properties"].update({"rssegment:channels": [10, 20, 77]}))
    with pytest.raises(BundleError, match=r"no channel stands for leaf 30; channel code 77 is no leaf"):
        Bundle.open(bundle)


def test_weights_of_another_network(bundle: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(bundle / "weights.safetensors")
    head = tensors.pop("segmentation_head.0.bias")
    tensors["segmentation_head.0.weight"] = tensors["segmentation_head.0.weight"][:2].clone()
    save_file(tensors | {"extra": head}, bundle / "weights.safetensors")
    resign(bundle)
    message = r"lacks segmentation_head.0.bias; has unknown extra; segmentation_head.0.weight is \(2, .*expected \(3, "
    with pytest.raises(BundleError, match=message):
        Bundle.open(bundle).load()


def test_damaged_safetensors(bundle: Path) -> None:
    (bundle / "weights.safetensors").write_bytes(b"\xff" * 64)
    resign(bundle)
    with pytest.raises(BundleError, match="no readable safetensors"):
        Bundle.open(bundle).load()


def test_unknown_architecture(bundle: Path) -> None:
    edit(bundle, lambda item: item["properties"].update({"mlm:architecture": "smp:Umet"}))
    with pytest.raises(BundleError, match="did you mean smp:Unet"):
        Bundle.open(bundle).load()


class Trap:
    """Running code when unpickled: touches a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


def as_kind(bundle: Path, kind: str, name: str, content: bytes) -> None:
    (bundle / name).write_bytes(content)

    def change(item: dict[str, Any]) -> None:
        item["properties"]["rssegment:artifact"] = kind
        item["assets"]["weights"]["href"] = f"./{name}"

    edit(bundle, change)
    resign(bundle)


def test_a_pickle_is_never_opened(bundle: Path, tmp_path: Path) -> None:
    mark = tmp_path / "unpickled"
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(1), "trap": Trap(mark)}, buffer)
    for content in (buffer.getvalue(), pickle.dumps(Trap(mark))):
        for kind, name in (("torchscript", "model.pt"), ("pt2", "model.pt2"), ("onnx", "model.onnx")):
            as_kind(bundle, kind, name, content)
            with pytest.raises(BundleError, match=r"safetensors|ONNX"):
                Bundle.open(bundle).load()
    assert not mark.exists()


def test_pickle_message_has_the_cure(bundle: Path) -> None:
    as_kind(bundle, "torchscript", "model.pt", pickle.dumps({}))
    with pytest.raises(BundleError, match=r"is a pickle and not TorchScript.*convert it to safetensors"):
        Bundle.open(bundle)


def test_paths_out_of_the_folder_are_refused(bundle: Path) -> None:
    for href in ("../weights.safetensors", "/etc/passwd", "https://example.org/w", "..", "a\\b"):
        edit(bundle, lambda item, href=href: item["assets"]["weights"].update(href=href))
        with pytest.raises(BundleError, match=r"\$\.assets\.weights\.href"):
            Bundle.open(bundle)


# Writing


def test_save_refuses_what_exists_and_what_does_not_run(
    bundle: Path, tmp_path: Path, taxonomy: Taxonomy
) -> None:
    spec = make_spec()
    module = create_architecture(spec.architecture, BANDS, len(CODES), **spec.architecture_options)
    with pytest.raises(OutputError, match="overwrite"):
        save_bundle(bundle, module, spec, taxonomy)
    half = torch.jit.script(torch.nn.Sequential(Tiny(), torch.nn.AvgPool2d(2)))
    with pytest.raises(ModelError, match=r"output of shape \(1, 3, 16, 16\); expected \(1, 3, 32, 32\)"):
        save_bundle(tmp_path / "odd", half, make_spec(artifact="torchscript"), taxonomy)
    with pytest.raises(BundleError, match="can't be saved as pt2"):
        save_bundle(tmp_path / "odd", module, make_spec(artifact="pt2"), taxonomy)
    assert not (tmp_path / "odd").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle"]  # nothing half-written is left


def test_overwrite_replaces_all_or_nothing(bundle: Path, tmp_path: Path, taxonomy: Taxonomy) -> None:
    before = Bundle.open(bundle).fingerprint
    spec = make_spec(title="second")
    module = create_architecture(spec.architecture, BANDS, len(CODES), **spec.architecture_options)
    with pytest.raises(BundleError):
        save_bundle(bundle, Tiny(), spec, taxonomy, overwrite=True)
    assert Bundle.open(bundle).fingerprint == before
    (bundle / "stale").touch()
    after = save_bundle(bundle, module, spec, taxonomy, overwrite=True)
    assert after.spec.title == "second"
    assert after.fingerprint != before
    assert sorted(p.name for p in bundle.iterdir()) == ["model.json", "taxonomy.yaml", "weights.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle"]


def test_what_is_no_bundle_is_not_replaced(tmp_path: Path, taxonomy: Taxonomy) -> None:
    work = {"spec": make_spec(artifact="torchscript"), "taxonomy": taxonomy, "overwrite": True}
    network = torch.jit.script(Tiny())
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    (tmp_path / "file").touch()
    for name in ("photos", "file"):
        with pytest.raises(OutputError, match=f"{name} is no model bundle, so it is not replaced"):
            save_bundle(tmp_path / name, network, **work)
    (tmp_path / "empty").mkdir()
    assert save_bundle(tmp_path / "empty", network, **work).spec.name == "tiny"


def test_overwriting_a_link_replaces_what_it_leads_to(
    bundle: Path, tmp_path: Path, taxonomy: Taxonomy
) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "link").symlink_to("bundle")
    (tmp_path / "dangling").symlink_to("deep/later")
    for name, place in (("link", bundle), ("dangling", tmp_path / "deep" / "later")):
        spec = make_spec(artifact="torchscript", title=name)
        save_bundle(tmp_path / name, torch.jit.script(Tiny()), spec, taxonomy, overwrite=True)
        assert (tmp_path / name).is_symlink()
        assert Bundle.open(place).spec.title == name
    assert {p.name for p in tmp_path.iterdir()} == {"bundle", "link", "dangling", "deep"}


def test_two_new_bundles_at_one_place(bundle: Path, tmp_path: Path) -> None:
    """The second doesn't replace the first without having been told so."""

    def write() -> None:
        with written_aside(tmp_path / "b"):
            shutil.copytree(bundle, tmp_path / "b")

    with pytest.raises(StorageError, match="could not be written: Directory not empty"):
        write()
    assert Bundle.open(tmp_path / "b").fingerprint == Bundle.open(bundle).fingerprint
    assert {p.name for p in tmp_path.iterdir()} == {"bundle", "b"}


def test_only_what_killed_programs_left_is_removed(bundle: Path, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        pass
    mine = temporary_prefix(tmp_path / "b")
    dead = mine.replace(f"-{os.getpid()}-", f"-{gone.pid}-")
    alive = mine.replace(f"-{os.getpid()}-", f"-{os.getppid()}-")
    names = [f"{alive}00000000", f"{dead}00000001", f"{dead}00000002.former", ".b.0a0a0a0a", ".bb"]
    for name in names:
        shutil.copytree(bundle, tmp_path / name)
    with pytest.raises(BundleError, match=f"What was there is in .*{dead}00000002.former"):
        Bundle.open(tmp_path / "b")
    with written_aside(tmp_path / "b") as folder:
        shutil.copytree(bundle, folder, dirs_exist_ok=True)
        assert {path.name for path in tmp_path.iterdir()} == {"bundle", folder.name, *names} - {names[1]}
    with written_aside(tmp_path / "b", overwrite=True) as folder:
        shutil.copytree(bundle, folder, dirs_exist_ok=True)
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "b", *names} - set(names[1:3])


def test_weights_that_are_not_there(tmp_path: Path, taxonomy: Taxonomy) -> None:
    with pytest.raises(StorageError, match=r"No such file or directory: .*none\.pt"):
        save_bundle(tmp_path / "b", tmp_path / "none.pt", make_spec(artifact="torchscript"), taxonomy)


def test_a_bundle_that_is_replaced_while_it_is_opened(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the new one don't fit the old description; then the description is read again."""
    from rssegment.model import bundle as module

    check, calls = module.check_file, []

    def late(folder: Path, asset: Any) -> None:
        calls.append(asset)
        if len(calls) == 1:
            save_calibration(bundle, Calibration(temperature=2))
            raise BundleError("lacks its file")
        check(folder, asset)

    monkeypatch.setattr(module, "check_file", late)
    assert Bundle.open(bundle).calibration == Calibration(temperature=2)


def test_describe_is_json(saved: Path) -> None:
    facts = json.loads(json.dumps(Bundle.open(saved).describe()))
    assert facts["parameters"] > 0
    assert [leaf["name"] for leaf in facts["leaves"]] == ["field", "forest", "water"]


# The ways into torch.export.load


def tampered(program: torch.export.ExportedProgram, change: Any) -> bytes:
    """The program's archive after ``change(parts)`` on its files by inner name."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    with zipfile.ZipFile(buffer) as archive:
        parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(parts)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in parts.items():
            archive.writestr(f"model/{name}", content)
    return out.getvalue()


def in_graph(change: Any) -> Any:
    def apply(parts: dict[str, bytes]) -> None:
        graph = json.loads(parts["models/model.json"])
        change(graph)
        parts["models/model.json"] = json.dumps(graph).encode()

    return apply


def in_weights(change: Any) -> Any:
    def apply(parts: dict[str, bytes]) -> None:
        name = "data/weights/model_weights_config.json"
        config = json.loads(parts[name])
        change(config["config"])
        parts[name] = json.dumps(config).encode()

    return apply


def first_node(graph: dict[str, Any]) -> dict[str, Any]:
    return graph["graph_module"]["graph"]["nodes"][0]


TRICKS = {
    "any torch function": in_graph(lambda g: first_node(g).update(target="torch.os.system")),
    "a file operator": in_graph(lambda g: first_node(g).update(target="torch.ops.aten.from_file.default")),
    "an operator call": in_graph(lambda g: first_node(g).update(target="_operator.methodcaller")),
    "another library": in_graph(lambda g: first_node(g).update(target="#evil:op")),
    "an expression": in_graph(
        lambda g: g["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0].update(
            as_expr={"expr_str": "__import__('os').getcwd()", "hint": {"as_int": 2}}
        )
    ),
    "a name": in_graph(lambda g: first_node(g).update(name="x = __import__('os')\ny")),
    "a pickled weight": in_weights(lambda c: c["head.bias"].update(use_pickle=True)),
    "a weight elsewhere": in_weights(lambda c: c["head.bias"].update(path_name="../constants/opaque_obj_0")),
    "no graph": lambda parts: parts.pop("models/model.json"),
    "bad json": lambda parts: parts.update({"models/model.json": b"{"}),
    "another layout": lambda parts: parts.update({"models/model.json": b"[1, 2]"}),
}


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.filterwarnings("ignore")
def test_pt2_that_could_run_code_is_refused(trick: str, artifact: Any, bundle: Path) -> None:
    as_kind(bundle, "pt2", "model.pt2", tampered(artifact("pt2")[0], TRICKS[trick]))
    with pytest.raises(BundleError, match=r"could run code|calls|pickle|save it again|valid JSON"):
        Bundle.open(bundle).load()


@pytest.mark.filterwarnings("ignore")
def test_pt2_parts_that_are_not_needed_are_ignored(
    artifact: Any, bundle: Path, tmp_path: Path, values: Tensor
) -> None:
    mark = tmp_path / "ran"

    def change(parts: dict[str, bytes]) -> None:
        parts["data/sample_inputs/model.pt"] = pickle.dumps(Trap(mark))
        parts["data/aotinductor/model/x.so"] = b"\x7fELF"
        in_graph(lambda g: g.update(guards_code=[f"open({str(mark)!r}, 'w')"]))(parts)

    as_kind(bundle, "pt2", "model.pt2", tampered(artifact("pt2")[0], change))
    assert Bundle.open(bundle).load()(values).shape == (2, 3, PATCH, PATCH)
    assert not mark.exists()


def test_files_may_be_read_by_whom_the_umask_lets(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    assert {item.stat().st_mode for item in saved.iterdir()} == {(tmp_path / "plain").stat().st_mode}
