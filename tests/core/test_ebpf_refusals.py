"""Why the kernel does not answer: from the failed step and its errno."""

from __future__ import annotations

import errno

import pytest

from porterlb.core.ebpf.refusals import Refusal, Step, refusal, sentence


@pytest.mark.parametrize(
    ("step", "error", "expected"),
    [
        (Step.DONE, 0, None),
        (Step.MACHINE, 0, Refusal.UNSUITABLE),
        (Step.CREATE, errno.EPERM, Refusal.NO_CAPABILITY),
        (Step.LOAD, errno.EPERM, Refusal.NO_CAPABILITY),
        (Step.ATTACH, errno.EPERM, Refusal.NO_CAPABILITY),
        (Step.CREATE, errno.ENOSYS, Refusal.OLD_KERNEL),
        (Step.CREATE, errno.EINVAL, Refusal.OTHER),
        (Step.LOAD, errno.EINVAL, Refusal.OTHER),
        (Step.ATTACH, errno.EINVAL, Refusal.OLD_KERNEL),
        (Step.LOAD, errno.EACCES, Refusal.OTHER),  # the verifier
        (Step.ATTACH, errno.ENODEV, Refusal.OTHER),
    ],
)
def test_the_reason_follows_from_the_step_and_the_error(step: Step, error: int, expected: Refusal | None) -> None:
    assert refusal(step, error) is expected


def test_every_reason_has_a_sentence() -> None:
    assert len({sentence(why) for why in Refusal}) == len(Refusal)
