from hypothesis import given
from hypothesis import strategies as st

from crabrt.operations.bisecting import Trial, search


def run_search(trials):
    asked = []

    def test(place):
        asked.append(place)
        return trials[place]

    return search(len(trials), test), asked


@given(st.integers(1, 200), st.integers(1, 200))
def test_the_first_bad_place_is_found_in_a_logarithm_of_tests(good, bad):
    trials = [Trial.GOOD] * good + [Trial.BAD] * bad
    (last_good, first_bad, skipped), asked = run_search(trials)
    assert (last_good, first_bad, skipped) == (good - 1, good, set())
    assert len(asked) <= 3 + (good + bad).bit_length()


@given(
    st.lists(st.sampled_from(["ok", "skip"]), max_size=30),
    st.lists(st.sampled_from(["ok", "skip"]), max_size=30),
)
def test_skipped_places_widen_the_answer_and_never_falsify_it(before, after):
    trials = [Trial.GOOD, *(Trial.GOOD if x == "ok" else Trial.SKIP for x in before)]
    trials += [*(Trial.BAD if x == "ok" else Trial.SKIP for x in after), Trial.BAD]
    truth = 1 + len(before)
    (last_good, first_bad, _), _ = run_search(trials)
    assert last_good is not None
    assert first_bad is not None
    assert trials[last_good] is Trial.GOOD
    assert trials[first_bad] is Trial.BAD
    assert last_good < truth <= first_bad
    assert all(t is Trial.SKIP for t in trials[last_good + 1 : first_bad])


def test_ends_that_do_not_differ_are_told():
    assert run_search([Trial.GOOD, Trial.GOOD])[0] == (1, None, set())
    assert run_search([Trial.BAD, Trial.BAD])[0] == (None, 0, set())
    assert run_search([Trial.SKIP, Trial.SKIP])[0] == (None, None, {0, 1})
    assert run_search([])[0] == (None, None, set())
