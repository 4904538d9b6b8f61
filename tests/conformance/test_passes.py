"""What every compression pass must do, and what `apply` makes of a list of them."""

import logging
from copy import deepcopy

import pytest
import torch

from framegate.compress import Pass, apply, same_weights, summary
from framegate.compress.distill import Distill
from framegate.compress.prune import Prune
from framegate.contract import ConfigError
from framegate.models.store import NetCard, load_net, save_net
from framegate.models.video import fold, run_clip
from tests.exported import LABELS, SPEC, context, random_clips, random_net

FRAMES = torch.from_numpy(random_clips(2))


def nudge(net, *, teacher, epochs, lr, temperature, alpha):
    """A fit that is over at once: one step of gradient descent towards the teacher, in place."""
    with torch.no_grad():
        wanted, _ = run_clip(teacher, FRAMES)
    (run_clip(net, FRAMES)[0] - wanted).square().mean().backward()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.sub_(lr * (torch.zeros(1) if parameter.grad is None else parameter.grad))
            parameter.grad = None
    return net


def lazy(net, **_):
    return net


@pytest.mark.parametrize("model", ["cnn", "cnn_gru", "cnn_lstm"])
@pytest.mark.parametrize("one", [Prune(0.5), Distill(epochs=1, lr=0.01)], ids=lambda one: type(one).__name__)
class TestEveryPass:
    def run(self, one: Pass, model: str):
        net, config = random_net(model)
        teacher, _ = random_net(model, seed=5)
        before = deepcopy(net)
        after = one(net, context(teacher, nudge))
        return net, before, after, config

    def test_leaves_its_input_alone(self, one: Pass, model: str) -> None:
        net, before, _, _ = self.run(one, model)
        assert same_weights(net, before)

    def test_changes_something(self, one: Pass, model: str) -> None:
        net, _, after, _ = self.run(one, model)
        assert not same_weights(net, after)

    def test_the_result_survives_a_file(self, one: Pass, model: str, tmp_path) -> None:
        *_, after, config = self.run(one, model)
        card = NetCard(model=model, variant="v", config=config, labels=LABELS, clip=SPEC, dataset="", metrics={})
        save_net(tmp_path, after, card)
        again, _ = load_net(tmp_path)
        with torch.no_grad():
            assert torch.equal(run_clip(again, FRAMES)[0], run_clip(after.eval(), FRAMES)[0])

    def test_the_clip_is_still_the_fold_of_the_step(self, one: Pass, model: str) -> None:
        *_, after, _ = self.run(one, model)
        with torch.no_grad():
            torch.testing.assert_close(run_clip(after.eval(), FRAMES)[0], fold(after, FRAMES)[0], atol=1e-5, rtol=1e-4)


def test_apply_reports_each_pass_and_logs_its_numbers(caplog) -> None:
    net, _ = random_net("cnn_gru")
    with caplog.at_level(logging.INFO, "framegate.compress"):
        small, reports = apply(net, [Prune(0.5), Distill(1)], context(net, nudge))
    pruned, distilled = reports
    assert (pruned.name, distilled.name) == ("prune 50 %", "distill 1 epoch")
    assert pruned.parameters_after == distilled.parameters_before == distilled.parameters_after
    assert pruned.parameters_after < pruned.parameters_before
    assert pruned.macs_after < pruned.macs_before
    assert small.state_size < net.state_size
    assert [record.getMessage() for record in caplog.records] == [summary(pruned), summary(distilled)]
    assert "val accuracy 0.500 -> 0.500" in summary(pruned)


@pytest.mark.parametrize("one", [Prune(0.01), Distill(2)], ids=["prune", "distill"])
def test_a_pass_that_changed_nothing_is_an_error(one: Pass) -> None:
    net, _ = random_net("cnn_gru")
    with pytest.raises(ConfigError, match=f"{one.name}.*changed nothing"):
        apply(net, [one], context(net, lazy))


def test_no_passes_change_nothing() -> None:
    net, _ = random_net("cnn")
    assert apply(net, [], context(net)) == (net, ())


def test_distillation_hands_its_settings_to_the_fit() -> None:
    seen = {}

    def fit(net, **settings):
        seen.update(settings)
        return net

    net, _ = random_net("cnn")
    Distill(3, 0.5, 4.0, 0.25)(net, context(net, fit))
    assert seen == {"teacher": net, "epochs": 3, "lr": 0.5, "temperature": 4.0, "alpha": 0.25}


def test_settings_of_distillation_are_all_checked_at_once() -> None:
    with pytest.raises(ConfigError, match=r"epochs: got 0.*lr: got -1.*temperature: got 0.*alpha: got 2"):
        Distill(0, -1, 0, 2)
