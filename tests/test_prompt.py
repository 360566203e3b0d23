"""What one sees at the prompt: signatures, help, completion; and what type checkers make of ordinary programs."""

import inspect
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import PAGES, blocks, python_blocks

import gradtx
from gradtx.authoring import Decay, Leafwise, NonNegative, Schedule, Spec, ema
from gradtx.core import documentation

VALUES = {
    name: cls
    for name, cls in gradtx.registry().items()
    if isinstance(cls, type) and cls.__module__.startswith("gradtx.") and name != "GradientTransformation"
}
every_value = pytest.mark.parametrize("name", VALUES)


def test_a_signature_is_what_a_person_would_write():
    assert str(inspect.signature(gradtx.adam)) == (
        "(learning_rate: Rate, b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-08, "
        "eps_root: NonNegative = 0.0, mu_dtype: DType | None = None, nesterov: Flag = False, eps_hat: Flag = False)"
    )
    assert "mask: Mask = None" in str(inspect.signature(gradtx.lion))
    assert str(inspect.signature(gradtx.linear_schedule)).startswith("(init_value: Number, end_value: Number, ")


@every_value
def test_signatures_name_their_kinds(name):
    """No `Annotated[...]`, no address of an object, no private name."""
    assert not re.search(r"Annotated|0x|object at|: _", str(inspect.signature(VALUES[name])))


@every_value
def test_help_tells_every_hyper_parameter(name):
    """Help has the kind, default and meaning of each, and the methods that a user calls, on about a screen."""
    cls = VALUES[name]
    page = pydoc.plain(pydoc.render_doc(cls))
    for parameter in inspect.signature(cls).parameters.values():
        assert f"\n |      {parameter}\n" in page, parameter
        meaning = documentation.field_meanings(cls)[parameter.name]
        assert len(meaning.split()) > 2, f"{name}.{parameter.name}: say in words what {meaning!r} is"
    assert not re.search(
        r"__init__|__setattr__|__dataclass|\bupdate_fn|takes_half_precision", page.split("Hyper-par")[-1]
    )
    assert len(page.splitlines()) < 140


def test_help_on_adam():
    page = pydoc.plain(pydoc.render_doc(gradtx.adam))
    assert re.search(r"\n \|      b1: Decay = 0\.9\n \|          .*first moment.*In \[0, 1\)\.\n", page)
    assert "Wherever a number is expected, a scalar array or a schedule may be given." in page
    assert "Wherever a number is expected, a scalar array may be given." in pydoc.render_doc(gradtx.linear_schedule)
    assert len(page.splitlines()) < 80


@every_value
def test_completion_on_classes_and_values_shows_what_one_uses(name):
    cls = VALUES[name]
    assert {*cls.for_users} <= {*dir(cls)}
    assert not {"update_fn", "init_fn", "leaf", "expand", "field_kinds", "takes_half_precision", "at"} & {*dir(cls)}
    fields = {*inspect.signature(cls).parameters}
    assert not fields & {*dir(cls)}
    if cls.for_users[0] != "__call__":
        assert fields <= {*dir(cls.example())}


def test_help_on_what_users_derive():
    """An abstract class shows its methods, which are there to be overridden; one's own class gets the same help."""
    assert {"leaf", "init_leaf", "State", "update_fn"} <= {*dir(Leafwise)}
    assert {"at", "replace"} <= {*dir(Schedule)}
    assert str(inspect.signature(Leafwise)) == "()"
    assert str(inspect.signature(gradtx.GradientTransformation)) == "(init_fn, update_fn)"
    assert {"field_kinds", "example"} <= {*dir(Spec)}

    class scale_by_two_means(Leafwise, name="test_prompt.scale_by_two_means"):
        """m ← β m + (1 − β) g"""

        State = gradtx.TraceState

        decay: Decay = 0.9
        "Decay rate of the mean."
        eps: NonNegative = gradtx.scale_by_adam.eps

        def leaf(self, g, trace):
            return g, ema(trace, g, self.decay)

    page = inspect.getdoc(scale_by_two_means)
    assert page.startswith(
        "m ← β m + (1 − β) g\n\nHyper-parameters:\n    decay: Decay = 0.9\n        Decay rate of the mean."
    )
    assert str(inspect.signature(scale_by_two_means)) == "(decay: Decay = 0.9, eps: NonNegative = 1e-08)"


def test_a_class_from_a_prompt_has_help_without_source():
    program = """
import gradtx, inspect
from gradtx.authoring import Leafwise, Rate
exec('''
class own(Leafwise):
    rate: Rate
    def leaf(self, g):
        return self.rate * g
''')
print(inspect.getdoc(own), inspect.signature(own))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "rate: Rate" in done.stdout


# Type checkers.


PROGRAM = """
import functools

import flax.linen
import jax
import jax.numpy as jnp
import optax

import gradtx
import gradtx.keras
from gradtx.authoring import Decay, Leafwise, Optimizer, Rate, ema

tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(1e-3))
init, update = tx
params = {"w": jnp.zeros(3)}
updates, state = tx.update(params, tx.init(params), params)
params = gradtx.apply_updates(params, updates)
tx = tx.replace(stages=(gradtx.sgd(0.1),))

gradtx.adam(jnp.asarray(0.1), b1=jnp.float32(0.9))
gradtx.adam(lambda count: 0.1 / (1 + count), mu_dtype="bfloat16")
gradtx.adam(gradtx.cosine_decay_schedule(0.1, 100), mu_dtype=jnp.bfloat16)
gradtx.adam(0.5 * gradtx.linear_schedule(0.1, 0.0, 10))
gradtx.adam(optax.cosine_decay_schedule(0.1, 100))
gradtx.chain(optax.clip(1.0), gradtx.identity(), gradtx.set_to_zero(), gradtx.normalize())
gradtx.chain(gradtx.GradientTransformation(lambda params: (), lambda updates, state, params=None: (updates, state)))
gradtx.masked(gradtx.adamw(1e-3, weight_decay=0.1), gradtx.weights_only())
gradtx.inject_hyperparams(gradtx.adam)(learning_rate=0.1)
gradtx.inject_hyperparams(gradtx.adam(0.1))
gradtx.partition({"a": gradtx.adam(1e-3), "b": gradtx.freeze()}, lambda params: params)
gradtx.accumulate(gradtx.adam(1e-3), 4)
optax.chain(gradtx.to_optax(gradtx.adam(1e-3)))
gradtx.losses.huber_loss(jnp.ones(3), 0.0, delta=2.0).mean()
jax.grad(gradtx.squared_error)(1.0, 2.0)


class scale_by_mean(Leafwise):
    State = gradtx.TraceState

    decay: Decay = 0.9

    def leaf(self, g: jax.Array, trace: jax.Array) -> tuple[jax.Array, jax.Array]:
        trace = ema(trace, g, self.decay)
        return trace * (1 - self.decay), trace


class mean_descent(Optimizer):
    learning_rate: Rate
    decay: Decay = scale_by_mean.decay

    def expand(self) -> gradtx.chain:
        return gradtx.chain(scale_by_mean(self.decay), gradtx.scale_by_learning_rate(self.learning_rate))


mean_descent(1e-3, decay=0.5)

opt = gradtx.keras.Adam(lr=1e-3, clipnorm=1.0)
opt.lr = 1e-4
"""

MISTAKES = {
    "gradtx.adam(learning_rat=3)": "learning_rat",
    'gradtx.adam("fast")': "fast|str",
    "gradtx.adam(0.1, b1=None)": "None",
    "gradtx.adam(0.1, nesterov=3)": "3|int",
    "gradtx.chain(gradtx.adam)": "adam",
    "gradtx.adam(0.1).b1 = 0.5": "b1",
    "gradtx.keras.Adam(learning_rat=3)": "learning_rat",
}

PYRIGHT_LETS_PASS = {"gradtx.chain(gradtx.adam)"}
"To pyright a class with methods `init` and `update` has them as well as its instances; the constructor refuses it."

CHECKERS = {
    "mypy": ("mypy", "--ignore-missing-imports", "--allow-redefinition", "--no-error-summary", "--cache-dir", "cache"),
    "pyright": ("basedpyright", "--level", "error", "--pythonpath", sys.executable),
}
GUIDES = [page for page in PAGES if page.name != "coming-from-optax.md"]
"All pages but the one that shows what optax's types and constructors accept."
UNTYPED = r"\* m \+ |jnp\.sign\(m\)"
"What the guides do although JAX's types do not allow it: arithmetic with a `Variable`, as with one of Keras."


def guide_programs(page: Path) -> dict[str, str]:
    """A page as a program; one that imports other modules under one name in each section, its sections as programs.

    What the first section defines is there in all of them.
    """
    head = ["import jax", "import jax.numpy as jnp", "import gradtx"]
    if page.name != "coming-from-keras.md":
        return {f"{page.stem.replace('-', '_')}.py": "\n".join([*head, *blocks(page)])}
    first, *sections = re.split(r"^## ", page.read_text(), flags=re.MULTILINE)
    programs = ["\n".join([*head, *python_blocks(first), *python_blocks(section)]) for section in sections]
    return {f"coming_from_keras_{i}.py": program for i, program in enumerate(programs)}


def faults(checker: str, programs: dict[str, str], folder: Path) -> dict[str, dict[int, str]]:
    """What a type checker finds, in one run over all programs: by file and line."""
    for name, program in programs.items():
        (folder / name).write_text(program)
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    command = [str(Path(sys.executable).parent / CHECKERS[checker][0]), *CHECKERS[checker][1:], *programs]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, dict[int, str]] = {name: {} for name in programs}
    for name, line, fault in re.findall(r"(\w+\.py):(\d+).* error: (.*)", done.stdout):
        found[name][int(line)] = found[name].get(int(line), "") + fault
    return found


@pytest.mark.parametrize("checker", CHECKERS)
def test_type_checkers_accept_ordinary_programs_and_find_mistakes(checker, tmp_path):
    """The README, the guides and a program of what people write; then a mistake on each line."""
    mistakes = MISTAKES if checker == "mypy" else {k: v for k, v in MISTAKES.items() if k not in PYRIGHT_LETS_PASS}
    programs = {"program.py": PROGRAM, "mistakes.py": PROGRAM + "\n".join(mistakes)}
    for page in GUIDES:
        programs |= guide_programs(page)
    found = faults(checker, programs, tmp_path)
    wrong, first = found.pop("mistakes.py"), len(PROGRAM.splitlines()) + 1
    for number, (mistake, mention) in enumerate(mistakes.items(), first):
        assert re.search(mention, wrong.get(number, "")), f"{checker} lets pass: {mistake}"
    lines = {name: ["", *program.splitlines()] for name, program in programs.items()}
    unexpected = {
        f"{name}: {lines[name][n]}": fault
        for name, by_line in found.items()
        for n, fault in by_line.items()
        if not re.search(UNTYPED, lines[name][n])
    }
    assert unexpected == {}
