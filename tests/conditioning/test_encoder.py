import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ric_diffusion.conditioning.encoder import RewardEncoder, Sizes, as_values, fourier_features
from ric_diffusion.conditioning.steering import Steering, smooth_features
from ric_diffusion.io.errors import InputError

REPOSITORY = Path(__file__).parents[2]
NAMES = ("colorfulness", "compressibility", "aesthetic")
NAN = math.nan


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return RewardEncoder(NAMES, 48, hidden=32).eval()


def test_targets_by_name_become_rows_in_order_with_nan_for_auto():
    values = as_values([{"aesthetic": 2.0, "colorfulness": -1.5}, {}], NAMES)
    assert values.dtype == torch.float32
    assert torch.equal(values[0].nan_to_num(9.0), torch.tensor([-1.5, 9.0, 2.0]))
    assert values[1].isnan().all() and values.shape == (2, 3)


def test_one_token_for_each_reward(encoder):
    assert encoder(torch.zeros(5, 3)).shape == (5, 3, 48)
    tokens = encoder(torch.tensor([[NAN, 1.0, -2.0], [NAN, NAN, NAN]]))
    assert tokens.isfinite().all()


def test_a_token_depends_on_its_own_reward_alone(encoder):
    one = encoder(torch.tensor([[NAN, 1.0, -2.0]]))[0]
    other = encoder(torch.tensor([[NAN, 1.0, 3.0]]))[0]
    assert torch.equal(one[:2], other[:2])
    assert not torch.allclose(one[2], other[2], atol=1e-2)


def test_auto_is_a_token_of_its_own(encoder):
    auto = encoder(torch.full((1, 3), NAN))[0]
    values = torch.linspace(-6, 6, 121)[:, None].expand(-1, 3)
    distance = (encoder(values) - auto).square().mean(-1).sqrt()  # (121, 3)
    assert distance.min() > 0.1


def test_the_same_value_of_two_rewards_is_not_the_same_token(encoder):
    values = torch.linspace(-6, 6, 121)[:, None].expand(-1, 3)
    first, second, third = encoder(values).unbind(1)
    for a, b in ((first, second), (second, third), (first, third)):
        assert (a - b).square().mean(-1).sqrt().min() > 0.1


def test_a_tenth_of_a_z_makes_another_token(encoder):
    """On the whole range at once: no two values share a token, though 12 z lie between them."""
    values = torch.linspace(-6, 6, 121)
    tokens = encoder(values[:, None].expand(-1, 3))
    for reward in range(3):
        distance = torch.cdist(tokens[:, reward], tokens[:, reward]) / math.sqrt(48)
        assert (distance + torch.eye(121)).min() > 5e-3


def test_the_slider_has_no_steps(encoder):
    values = torch.linspace(-6, 6, 1201)[:, None].expand(-1, 3)
    steps = encoder(values).diff(dim=0).square().mean(-1).sqrt()
    assert steps.min() > 0 and steps.max() < 0.1


def test_values_beyond_the_limit_read_as_the_limit(encoder):
    far = encoder(torch.tensor([[6.0, -6.0, 6.0], [60.0, -1e9, math.inf]]))
    assert torch.equal(far[0], far[1])
    assert not torch.allclose(encoder(torch.full((1, 3), 5.9)), far[:1], atol=1e-3)


def test_fourier_features_by_hand():
    """The value itself, then periods 24, 12, ..., 0.75: at 6 the first sine is 1, the second 0."""
    features = fourier_features(torch.tensor([6.0, 0.0]))
    assert features.shape == (2, 13)
    assert torch.allclose(features[0, :4], torch.tensor([6.0, 1.0, 0.0, 0.0]), atol=1e-6)
    assert torch.allclose(features[1], torch.tensor([0.0] * 7 + [1.0] * 6))


def test_gradients_stay_finite_beside_auto(encoder):
    encoder(torch.tensor([[NAN, 1.0, NAN]])).square().sum().backward()
    grads = {name: p.grad for name, p in encoder.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    assert (grads["auto"].abs().sum(-1) > 0).tolist() == [True, False, True]


def test_tokens_have_the_scale_of_a_text_encoders_states(encoder):
    tokens = encoder(torch.randn(50, 3))
    assert tokens.mean(-1).abs().max() < 1e-5
    assert torch.allclose(tokens.std(-1, unbiased=False), torch.ones(50, 3), atol=1e-2)


def test_the_shift_reads_the_last_tokens_and_starts_at_nothing():
    torch.manual_seed(0)
    encoder = RewardEncoder(NAMES, 48, hidden=32, time_width=20)
    context = torch.randn(5, 11, 48)
    assert torch.equal(encoder.time_shift(context), torch.zeros(5, 20))
    torch.nn.init.normal_(encoder.to_time.weight)
    shift = encoder.time_shift(context)
    assert torch.equal(shift, encoder.time_shift(context[:, 8:]))
    for token in (8, 9, 10):
        other = context.index_fill(1, torch.tensor(token), 0.0)
        assert not torch.allclose(encoder.time_shift(other), shift, atol=0.1)
    assert encoder.time_shift(context.half()).dtype == torch.float32
    encoder.check_fit(time_width=20)
    RewardEncoder(NAMES, 48, hidden=32).check_fit(time_width=20, layers=4)  # it shifts nothing
    with pytest.raises(InputError) as error:
        encoder.check_fit(time_width=1)
    assert str(error.value) == (
        "the reward encoder shifts a time embedding 20 wide, this model has a time embedding 1 "
        "wide: the adapter was trained on another architecture"
    )


def test_one_made_without_sizes_has_those_of_the_recipes():
    """Of 256 states, which neither shift nor steer."""
    encoder = RewardEncoder(NAMES, 48)
    assert (encoder.hidden, encoder.time_width, encoder.layers) == (256, 0, 0)
    assert encoder.auto.shape == (3, 256) and encoder.value.shape == (3, 13, 256)
    assert encoder.steering is None and not hasattr(encoder, "to_time")
    RewardEncoder(NAMES, 48, hidden=8, time_width=4).check_fit(time_width=4)
    RewardEncoder(NAMES, 48, hidden=8, layers=1).check_fit(layers=1)
    one_layer = RewardEncoder(NAMES, 48, hidden=8, layers=1)
    with pytest.raises(InputError, match="shifts 1 layers, this model has 2 layers"):
        one_layer.check_fit(layers=2)


def test_weights_at_first_have_the_scales_that_are_said():
    torch.manual_seed(0)
    encoder = RewardEncoder(("a",), 8, hidden=4096, layers=2)
    assert encoder.value.std().item() == pytest.approx(13**-0.5, rel=0.02)
    assert encoder.auto.std().item() == pytest.approx(1.0, rel=0.05)
    assert encoder.identity.abs().max() == 0
    steering = Steering(64, 2, 8, hidden=64)
    assert steering.value.std().item() == pytest.approx(3**-0.5, rel=0.03)
    assert steering.bias.std().item() == pytest.approx(0.5, rel=0.05)
    assert steering.auto.abs().max() == 0 and steering.scale.tolist() == [1.0, 1.0]
    assert Steering(1, 2, 8).bias.shape == (1, 64)
    assert steering(torch.randn(3, 64)).abs().max() == 0  # at first the model is as it was


def test_features_of_steering_by_hand():
    """The value, (its square - 1) / 2, its tanh; beyond 6 as at 6."""
    features = smooth_features(torch.tensor([[2.0, -1.0, 60.0]]))
    assert features.shape == (1, 3, 3)
    expected = [[2.0, 1.5, math.tanh(2)], [-1.0, 0.0, -math.tanh(1)], [6.0, 17.5, math.tanh(6)]]
    assert torch.allclose(features[0], torch.tensor(expected))


def test_what_the_encoder_computes():
    """Against the formulas of its docstrings, written out for one reward at a time."""
    torch.manual_seed(0)
    encoder = RewardEncoder(NAMES, 48, hidden=32, layers=4)
    steering = encoder.steering
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter)
    steering.scale.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    values = torch.tensor([[1.5, NAN, -0.7]])
    states, steered = [], []
    for i, value in enumerate(values[0]):
        if value.isnan():
            states.append(encoder.auto[i] + encoder.identity[i])
            steered.append(steering.auto[i])
            continue
        states.append(fourier_features(value) @ encoder.value[i] + encoder.identity[i])
        steered.append(smooth_features(value) @ steering.value[i] + steering.bias[i])
    tokens = encoder.norm(encoder.out(encoder.mix(torch.stack(states))))
    assert torch.allclose(encoder(values)[0], tokens, atol=1e-4)
    flat = steering.out(steering.mix(torch.stack(steered)).flatten())
    added = flat.unflatten(0, (4, 48)) * steering.scale[:, None]
    assert torch.allclose(steering(values)[0], added, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 0}, "width is 0; give 1 or more"),
        ({"hidden": 2**20 + 1}, "hidden is 1048577; give 1048576 at most"),
        ({"time_width": -1}, "time_width is -1; give 0 or more"),
        ({"layers": -1}, "layers is -1; give 0 or more"),
        ({"names": ()}, "names must be one or more, each once"),
        ({"names": ("a", "a")}, "names must be one or more, each once"),
    ],
)
def test_sizes_are_bounded(changes, said):
    with pytest.raises(ValueError) as error:
        Sizes(**{"names": ("a",), "width": 1, "hidden": 1, **changes})
    assert str(error.value) == said


SCRIPT = """
import sys, torch
from pathlib import Path
from safetensors.torch import save_file
from ric_diffusion.conditioning.encoder import RewardEncoder
torch.set_num_threads(1)
encoder = RewardEncoder.load(Path(sys.argv[1]))
assert not encoder.training
values = torch.linspace(-6, 6, 30).reshape(10, 3)
values[0, 1] = torch.nan
save_file({"tokens": encoder(values).detach(), **encoder.state_dict()}, sys.argv[2])
print(*encoder.names, encoder.width, encoder.hidden)
"""


def test_saved_and_loaded_in_another_process_it_gives_the_same_tokens(encoder, tmp_path):
    encoder.save(tmp_path / "encoder.safetensors")
    files = [str(tmp_path / name) for name in ("encoder.safetensors", "out.safetensors")]
    command = [sys.executable, "-c", SCRIPT, *files]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [*NAMES, "48", "32"]
    found = load_file(tmp_path / "out.safetensors")
    values = torch.linspace(-6, 6, 30).reshape(10, 3)
    values[0, 1] = torch.nan
    assert torch.equal(found.pop("tokens"), encoder(values))
    assert found.keys() == encoder.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in encoder.state_dict().items())


ABOUT = '{"names": ["a", "b", "c"], "width": 48, "hidden": 32, "time_width": 0}'


def with_about(about):
    return lambda path, tensors: save_file(tensors, path, metadata={"reward_encoder": about})


def cut(path, tensors):
    with_about(ABOUT)(path, tensors)
    path.write_bytes(path.read_bytes()[:-100])


def without_auto(path, tensors):
    del tensors["auto"]
    with_about(ABOUT)(path, tensors)


BROKEN = {
    "missing": lambda path, tensors: None,
    "empty": lambda path, tensors: path.write_bytes(b""),
    "text": lambda path, tensors: path.write_text("this is no safetensors file at all"),
    "cut": cut,
    "stranger": lambda path, tensors: save_file(tensors, path),
    "not json": with_about("{"),
    "null": with_about("null"),
    "no width": with_about('{"names": ["a", "b", "c"]}'),
    "text for width": with_about(ABOUT.replace("48", '"48"')),
    "a time embedding it lacks": with_about(ABOUT.replace(": 0", ": 64")),
    "a time embedding below nothing": with_about(ABOUT.replace(": 0", ": -1")),
    "another width": with_about(ABOUT.replace("48", "64")),
    "another count": with_about(ABOUT.replace(', "c"', "")),
    "tensor missing": without_auto,
}


def test_what_steers_a_language_model_is_stored_too(tmp_path):
    torch.manual_seed(0)
    encoder = RewardEncoder(NAMES, 48, hidden=32, layers=4)
    torch.nn.init.normal_(encoder.steering.out.weight)
    encoder.steering.scale = torch.tensor([1.0, 2.0, 3.0, 4.0])
    path, values = tmp_path / "encoder.safetensors", torch.tensor([[NAN, 1.0, -2.0]])
    encoder.save(path)
    assert torch.equal(RewardEncoder.load(path).steering(values), encoder.steering(values))
    encoder.check_fit(layers=4)
    with pytest.raises(InputError, match="shifts 4 layers, this model has 5 layers"):
        encoder.check_fit(layers=5)
    encoder.steering.scale[2] = torch.inf
    encoder.save(path)
    with pytest.raises(InputError, match="not finite"):
        RewardEncoder.load(path)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_is_no_reward_encoder_is_refused(encoder, tmp_path, kind):
    path = tmp_path / "encoder.safetensors"
    BROKEN[kind](path, dict(encoder.state_dict()))
    with pytest.raises(InputError, match=r"encoder\.safetensors: not a reward encoder") as error:
        RewardEncoder.load(path)
    assert "\n" not in str(error.value) and "(None)" not in str(error.value)


def test_the_unbroken_file_is_read(encoder, tmp_path):
    path = tmp_path / "encoder.safetensors"
    with_about(ABOUT)(path, dict(encoder.state_dict()))
    assert RewardEncoder.load(path).names == ("a", "b", "c")


def test_saving_replaces_the_file_whole(encoder, tmp_path):
    path = tmp_path / "encoder.safetensors"
    encoder.save(path)
    torch.nn.init.ones_(encoder.auto)
    encoder.save(path)
    assert torch.equal(RewardEncoder.load(path).auto, torch.ones(3, 32))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_in_half_precision_it_computes_in_that(encoder):
    whole = encoder(as_values([{"aesthetic": 2.0}], NAMES))
    half = encoder.to(torch.bfloat16)(as_values([{"aesthetic": 2.0}], NAMES))
    first, other = (x[0] if isinstance(x, tuple) else x for x in (whole, half))
    assert other.dtype == torch.bfloat16
    assert torch.allclose(first, other.float(), atol=0.05)
