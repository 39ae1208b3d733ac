"""The task of classification: its loss is the textbook's, and varied cases stay what they are."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import nn
from torch.nn import functional as F

from prismts.cases import CaseBatch
from prismts.errors import SettingsError
from prismts.models import MODELS
from prismts.models.language import LanguageEncoder
from prismts.tasks.classify import Augmentation, Classify

SMALL = {"patch_length": 8, "stride": 4, "width": 6, "feed_forward": 12, "kernel_sizes": (5,), "channels": "mixed"}


class Fixed(torch.nn.Module):
    """Says the same scores whatever it reads."""

    def __init__(self, scores):
        super().__init__()
        self.scores = torch.tensor(scores)

    def forward(self, x, observed=None):
        return self.scores


def batch(n=4, n_channels=2, n_timepoints=20, observed=None, seed=0) -> CaseBatch:
    x = torch.randn(n, n_channels, n_timepoints, generator=torch.Generator().manual_seed(seed))
    return CaseBatch(x, observed, torch.arange(n) % 3)


SCORES = [[2.0, 0.5, -1.0], [0.1, 0.2, 0.3], [-2.0, 0.0, 2.0], [0.0, 0.0, 0.0]]


def test_the_loss_is_the_cross_entropy_of_the_field():
    cases = batch()
    probabilities = torch.tensor(SCORES).softmax(1).numpy()
    expected = log_loss(cases.label.numpy(), probabilities, labels=[0, 1, 2])
    task = Classify(3)
    assert float(task.loss(Fixed(SCORES), cases)) == pytest.approx(expected, rel=1e-6)
    total, count = task.errors(Fixed(SCORES), cases)
    assert float(total) / float(count) == pytest.approx(expected, rel=1e-6)


def test_class_weights_count_cases_as_if_they_were_there_more_often():
    cases, weights = batch(), np.array([2.0, 1.0, 1.0])
    own = torch.tensor(SCORES).log_softmax(1)[torch.arange(4), cases.label].neg()
    expected = (2 * own[0] + own[1] + own[2] + 2 * own[3]) / 6
    task = Classify(3, class_weight=weights)
    total, count = task.errors(Fixed(SCORES), cases)
    assert float(count) == 6 and float(total / count) == pytest.approx(float(expected), rel=1e-6)
    assert float(task.loss(Fixed(SCORES), cases)) == pytest.approx(float(expected), rel=1e-6)


def test_judged_by_accuracy_the_error_is_the_number_of_mistakes():
    total, count = Classify(3, judge="accuracy").errors(Fixed(SCORES), batch())
    assert (float(total), float(count)) == (1, 4)  # the second case is said to be class 2; ties go to the first class


def test_nothing_is_varied_unless_asked():
    cases = batch()
    x, order, share = Classify(3)._varied(cases)
    assert x is cases.context and share is None and order.tolist() == [0, 1, 2, 3]


def test_a_shift_moves_a_case_and_repeats_its_edge():
    torch.manual_seed(0)
    cases = CaseBatch(torch.arange(20.0).expand(64, 1, 20).clone(), None, torch.zeros(64, dtype=torch.long))
    x, _, _ = Classify(2, augmentation=Augmentation(shift=0.1))._varied(cases)
    moves = {tuple((row[0] - torch.arange(20.0)).tolist()[5:15]) for row in x}
    assert moves == {(float(m),) * 10 for m in range(-2, 3)}
    assert x.min() == 0 and x.max() == 19


def test_mixed_cases_are_judged_by_the_share_of_each():
    torch.manual_seed(0)
    cases = batch()
    task = Classify(3, augmentation=Augmentation(mix=0.5))
    x, order, share = task._varied(cases)
    torch.testing.assert_close(x, share * cases.context + (1 - share) * cases.context[order])
    assert 0 < float(share) < 1


def test_varied_cases_keep_their_gaps():
    observed = torch.ones(4, 2, 20, dtype=torch.bool)
    observed[:, :, 12:] = False
    how = Augmentation(jitter=0.5, stretch=0.5, shift=0.3, mix=0.5)
    cases = batch(observed=observed)._replace(context=batch().context.masked_fill(~observed, 0.0))
    x, _, share = Classify(3, augmentation=how)._varied(cases)
    assert share is None and not x[:, :, 12:].any() and not torch.equal(x, cases.context)


@pytest.mark.parametrize("pooling", ["max", "mean", "both"])
def test_padding_at_the_end_changes_no_score(pooling):
    torch.manual_seed(0)
    model = Classify(3, pooling=pooling).build("convtimenet", SMALL, n_channels=2, context_length=40).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    for length in (3, 8, 9, 21, 40):
        x = torch.randn(5, 2, length)
        alone = model(x)
        for more in (1, 7, 30):
            padded = torch.cat([x, torch.full((5, 2, more), 7.0)], dim=2)
            observed = torch.arange(length + more).expand_as(padded) < length
            torch.testing.assert_close(model(padded.masked_fill(~observed, 0.0), observed), alone, atol=1e-5, rtol=1e-5)


READERS = [name for name, one in MODELS.items() if one.is_encoder and not issubclass(one.build, LanguageEncoder)]
READERS.remove("itransformer")  # bound to one length
FORMS = [(name, {}) for name in READERS] + [
    ("convtimenet", {"channels": "mixed"}),
    ("lwconvtimenet", {"channels": "mixed"}),
]


def shaken(name: str, settings: dict) -> nn.Module:
    """A classifier whose weights are far from where they begin, where little would be seen."""
    torch.manual_seed(0)
    model = Classify(3).build(name, {"dropout": 0.0, **settings}, n_channels=2, context_length=64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize(("name", "settings"), FORMS)
def test_a_case_is_learned_from_in_company_as_it_is_answered_alone(name, settings):
    model = shaken(name, settings).eval()
    lengths = torch.tensor([40, 23, 64, 40, 33])
    x, seen = torch.randn(5, 2, 64), (torch.arange(64) < lengths[:, None])[:, None].expand(5, 2, 64).clone()
    seen[2, 1, 5:9] = False
    label = torch.tensor([0, 1, 2, 1, 0])
    together, n = Classify(3).errors(model, CaseBatch(x.masked_fill(~seen, 0.0), seen, label))
    alone = [model(x[[i], :, :n].masked_fill(~seen[[i], :, :n], 0.0), seen[[i], :, :n]) for i, n in enumerate(lengths)]
    torch.testing.assert_close(
        together, F.cross_entropy(torch.cat(alone), label, reduction="sum"), atol=1e-4, rtol=1e-4
    )
    assert n == 5


@pytest.mark.parametrize(
    "name", ["convtimenet", "lwconvtimenet", "cross_learner", "formertime", "moderntcn", "timemae"]
)
@pytest.mark.parametrize("training", [False, True])
def test_a_model_that_claims_to_heed_the_end_sees_nothing_behind_it(name, training):
    model = shaken(name, {"channels": "mixed"} if name.endswith("convtimenet") else {}).train(training)
    assert model.heeds_end
    for length in (9, 23, 40, 63):
        x, seen = torch.randn(6, 2, 64), (torch.arange(64) < length).expand(6, 2, 64)
        padded = model(x.masked_fill(~seen, 0.0), seen)
        torch.testing.assert_close(padded, model(x[..., :length]), atol=2e-5, rtol=1e-4)


def test_padding_does_not_count_in_the_statistics_of_training():
    model = Classify(3).build("convtimenet", SMALL | {"dropout": 0.0}, n_channels=2, context_length=40).train()
    x = torch.randn(6, 2, 21)
    observed = torch.arange(33).expand(6, 2, 33) < 21
    padded = torch.cat([x, torch.zeros(6, 2, 12)], dim=2)
    torch.testing.assert_close(model(padded, observed), model(x), atol=1e-5, rtol=1e-5)


def test_what_cannot_be_told_apart_is_refused():
    with pytest.raises(SettingsError, match="at least 2 classes"):
        Classify(1)
    with pytest.raises(SettingsError, match="direct forecaster"):
        Classify(2).build("ridge", {}, n_channels=1, context_length=10)
    with pytest.raises(SettingsError, match="Did you mean 'accuracy'"):
        Classify(2, judge="acuracy")
