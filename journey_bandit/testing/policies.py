"""The contract of a policy as tests: what `bandit.policies.protocol.Policy` promises, on worlds that hypothesis draws.

In a test file of yours:

    from journey_bandit.testing.policies import PolicyContract

    class TestMine(PolicyContract):
        policies = [Mine(), Mine(width=0.5)]

`LearnerContract` is for policies that learn each arm apart and draw by what they know. Every bound is the one that the
built-in policies keep.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bandit.arrays import Array, Mask
from bandit.belief import Belief, add, empty, sites
from bandit.errors import SnapshotError
from bandit.policies.protocol import ArmEconomics, Policy, Posterior
from bandit.release import check_definite

seeds = st.integers(0, 2**32 - 1)
_Test = TypeVar("_Test", bound=Callable[..., None])

# pytest makes an instance for each test, which is no matter here: nothing is kept in them
_checked = settings(deadline=None, suppress_health_check=[HealthCheck.differing_executors])


def _of_link(link: Literal["identity", "logit"]) -> Callable[[_Test], _Test]:
    """A claim about policies of one link only."""

    def mark(test: _Test) -> _Test:
        test.link = link  # type: ignore[attr-defined]
        return test

    return mark


class ContractWorld(NamedTuple):
    """World to test a policy on: n rewarded rows of k arms and d features, and one further context with what may be
    shown in it. The arrays are read-only.
    """

    x: Array  # (n, d)
    arm: NDArray[np.intp]  # (n,)
    reward: Array  # (n,) 0 or 1
    facts: ArmEconomics
    context: Array  # (d,)
    eligible: Mask  # (k,)
    propensity: Array  # (n, k) from which the arms were drawn

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the k arms, in the order of every (k,) array of the world; the first, a0, is the arm that shows
        nothing.
        """
        return self.facts.names


def facts(gain: Array, cost: Array) -> ArmEconomics:
    """Economics of k arms a0, a1, …: the first shows nothing, the others are of the types odd and even in turn. `gain`
    and `cost`: (k,), in units of the reward range.
    """
    k = len(gain)
    return ArmEconomics(
        tuple(f"a{i}" for i in range(k)), ("none", *("odd" if i % 2 else "even" for i in range(1, k))), gain, cost
    )


def turn(arms: ArmEconomics, order: NDArray[np.intp]) -> ArmEconomics:
    """Economics of the same k arms in another order: place i of the result is arm `order[i]`. `order` is a permutation,
    (k,) ints.
    """
    names, kinds = (tuple(part[i] for i in order) for part in (arms.names, arms.kinds))
    return ArmEconomics(names, kinds, arms.gain[order], arms.cost[order])


def plain(k: int) -> ArmEconomics:
    """Economics of k arms that are worth 1 for each reward and cost nothing, so that utility is the expected reward
    itself.
    """
    return facts(np.ones(k), np.zeros(k))


def world(seed: int, most: int = 300, *, varied: bool = True) -> ContractWorld:
    """Anything from no data at all to `most` rows, for 2 to 8 arms of 1 to 6 features; costs may be negative."""
    rng = np.random.default_rng(seed)
    k, d, n = rng.integers(2, 9), rng.integers(1, 7), rng.integers(0, most)
    x = np.rint(rng.uniform(-1, 1, (n + 1, d)) * 4096) / 4096
    x[:, 0] = 1.0
    arm = rng.integers(0, k, n)
    reward = (rng.random(n) < rng.uniform(0, 1, k)[arm]).astype(float)
    given = facts(rng.uniform(0.2, 1, k), rng.uniform(-0.2, 0.2, k)) if varied else plain(int(k))
    eligible = rng.random(k) < 0.7
    eligible[rng.integers(k)] = True
    propensity = np.rint(rng.dirichlet(np.ones(k), n) * 2**24) / 2**24
    made = ContractWorld(x[:n], arm, reward, given, x[n], eligible, propensity)
    for part in (*made[:3], given.gain, given.cost, made.context, eligible, propensity):
        part.flags.writeable = False
    return made


def untaught(policy: Policy, w: ContractWorld) -> Belief:
    """Belief over the world's arms before any row."""
    return empty(len(policy.rows(w.arms)), w.x.shape[1])


def design(policy: Policy, w: ContractWorld) -> Array:
    """What the policy learns the world's rows from, (n, D)."""
    return policy.design(w.x, w.arm, w.propensity)


def learned(policy: Policy, w: ContractWorld, rows: Any = slice(None)) -> Belief:
    """Belief that a policy forms of the world's `rows` (an index or a slice; all by default) in one step from no data.
    Its arrays are read-only, so a policy that writes to a belief fails.
    """
    x, k = design(policy, w)[rows], len(w.arms)
    tau, nu = policy.sites(untaught(policy, w), w.facts, x, w.arm[rows], w.reward[rows])
    belief = policy.sums(k, x, w.arm[rows], tau, nu, w.reward[rows])
    for part in belief:
        part.flags.writeable = False
    return belief


def posterior(policy: Policy, w: ContractWorld) -> Posterior:
    """Posterior of a policy after all n rows of the world, learned in one step: what its propensities are asked of."""
    return policy.posterior(learned(policy, w), w.facts)


def questions(w: ContractWorld, n: int, seed: int) -> tuple[Array, Mask]:
    """Contexts x (n, d) on the 2⁻¹² grid, and the mask (n, k) of what may be shown in each, at least one arm; both
    read-only, and the same for the same `seed`.
    """
    rng, k = np.random.default_rng(seed), len(w.arms)
    x = np.rint(rng.uniform(-1, 1, (n, len(w.context))) * 4096) / 4096
    x[:, 0] = 1.0
    eligible = rng.random((n, k)) < 0.7
    eligible[np.arange(n), rng.integers(0, k, n)] = True
    for part in (x, eligible):
        part.flags.writeable = False
    return x, eligible


class _OfPolicies:
    """Runs each test with each of `policies`."""

    policies: ClassVar[Sequence[Policy]] = ()
    """Instances to test; their `repr` names the tests."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Each policy in turn, of those that the test is about."""
        if "policy" in metafunc.fixturenames:
            link = getattr(metafunc.function, "link", None)
            metafunc.parametrize("policy", [p for p in self.policies if link in (None, p.link)], ids=repr)


class PolicyContract(_OfPolicies):
    """Contract of every policy, to subclass with `policies` set: probabilities sum to one and are 0 where ineligible,
    arguments stay as they are, batch-mates and names of arms change nothing, learning in batches is learning in one,
    and JSON bytes come back equal.
    """

    def first_arm_is_special(self, policy: Policy) -> bool:  # noqa: ARG002
        """Whether "no nudge" is more than the name of the first arm, so that relabelling leaves it first."""
        return False

    def arm_by_name(self, policy: Policy) -> int | None:  # noqa: ARG002
        """The number of the arm that the policy knows by its name, a0, a1, …; None if it knows none."""
        return None

    def relabelling_error(self, policy: Policy) -> float:  # noqa: ARG002
        """How much a propensity may change when arms are relabelled. More than 1e-7 only for probabilities that are
        integrated over fixed points.
        """
        return 1e-7

    def learns_its_prior(self, policy: Policy) -> bool:  # noqa: ARG002
        """Whether the prior is a function of the sums (empirical Bayes), so that sites depend on where a batch ends."""
        return False

    def declared(self, policy: Policy) -> Any:
        """Type that the JSON bytes of `policy` are decoded as, by default its own class. Override it for a policy that
        is one of a tagged union.
        """
        return type(policy)

    @_checked
    @given(seed=seeds)
    def test_probabilities_sum_to_one_and_are_zero_exactly_where_ineligible(self, policy: Policy, seed: int) -> None:
        w = world(seed)
        p = posterior(policy, w).choose(w.context, w.eligible).propensity
        assert p.shape == (len(w.arms),)
        assert abs(p.sum() - 1.0) <= 1e-6
        assert (p >= 0.0).all()
        assert (p[~w.eligible] == 0.0).all()

    @_checked
    @given(seed=seeds)
    def test_what_it_learned_is_fit_for_a_release(self, policy: Policy, seed: int) -> None:
        """A release refuses a belief that nobody can have learned, and no other."""
        w = world(seed)
        belief, k = learned(policy, w), len(w.arms)
        check_definite("belief", belief, policy, k)
        bent = belief.precision.copy()
        bent[0] -= (1.0 + np.abs(bent[0]).sum()) * np.eye(bent.shape[1])
        with pytest.raises(SnapshotError, match="belief: a precision has the eigenvalue -"):
            check_definite("belief", belief._replace(precision=bent), policy, k)

    @_checked
    @given(seed=seeds)
    def test_a_single_eligible_arm_is_certain(self, policy: Policy, seed: int) -> None:
        w = world(seed)
        ready = posterior(policy, w)
        for a in range(len(w.arms)):
            only = np.arange(len(w.arms)) == a
            assert ready.choose(w.context, only).propensity.tolist() == only.astype(float).tolist()

    @_checked
    @given(seed=seeds)
    def test_means_and_deviations_are_finite_and_do_not_depend_on_what_is_eligible(
        self, policy: Policy, seed: int
    ) -> None:
        w = world(seed)
        ready = posterior(policy, w)
        scores, everything = (ready.choose(w.context, m) for m in (w.eligible, np.ones_like(w.eligible)))
        assert np.isfinite(scores.mean).all()
        assert np.isfinite(scores.sd).all()
        assert (scores.sd > 0.0).all()
        assert (scores.mean.tolist(), scores.sd.tolist()) == (everything.mean.tolist(), everything.sd.tolist())

    @_checked
    @given(seed=seeds)
    def test_relabelling_arms_relabels_probabilities(self, policy: Policy, seed: int) -> None:
        """A policy that knows its arm by name takes the first eligible one where that may not be shown, whose place is
        its meaning: this case is left out.
        """
        w = world(seed)
        named = self.arm_by_name(policy)
        if named is not None and not w.eligible[named]:
            return
        order = np.random.default_rng(seed).permutation(len(w.arms))
        if self.first_arm_is_special(policy):  # the first arm shows nothing: that is what it is, not a label
            order = np.append(0, order[order > 0])
        turned = w._replace(
            arm=np.argsort(order)[w.arm],
            facts=turn(w.facts, order),
            propensity=w.propensity[:, order],
            eligible=w.eligible[order],
        )
        before = posterior(policy, w).choose(w.context, w.eligible)
        after = posterior(policy, turned).choose(w.context, turned.eligible)
        close = 1e-9 if policy.link == "identity" else 1e-7
        for old, new in zip(before[:2], after[:2], strict=True):
            np.testing.assert_allclose(new, old[order], rtol=0, atol=close)
        bound = self.relabelling_error(policy)
        np.testing.assert_allclose(after.propensity, before.propensity[order], rtol=0, atol=bound)

    @_checked
    @given(seed=seeds)
    def test_the_same_inputs_give_the_same_bits_and_stay_as_they_are(self, policy: Policy, seed: int) -> None:
        """Every input is read-only here, and other questions are asked in between."""
        w = world(seed)
        digest = learned(policy, w).digest()
        one, another = posterior(policy, w), posterior(policy, w)
        first = one.choose(w.context, w.eligible)
        one.choose(-w.context, np.ones_like(w.eligible))
        for again in (one.choose(w.context, w.eligible), another.choose(w.context, w.eligible)):
            assert [part.tobytes() for part in again] == [part.tobytes() for part in first]
        assert learned(policy, w).digest() == digest

    @_checked
    @given(seed=seeds)
    def test_many_at_once_are_chosen_for_as_one_by_one(self, policy: Policy, seed: int) -> None:
        """Within 1e-9, exactly 0 where ineligible; the inputs are read-only."""
        w = world(seed)
        ready, (x, eligible) = posterior(policy, w), questions(w, 9, seed)
        many = ready.choose_many(x, eligible)
        for part, alone in zip(many, zip(*map(ready.choose, x, eligible), strict=True), strict=True):
            np.testing.assert_allclose(part, np.array(alone), rtol=0, atol=1e-9)
        assert (many.propensity[~eligible] == 0.0).all()
        np.testing.assert_allclose(many.propensity.sum(axis=1), 1.0, rtol=0, atol=1e-6)

    @_checked
    @given(seed=seeds, n=st.integers(1, 300))
    def test_a_decision_does_not_depend_on_the_others_of_its_batch(self, policy: Policy, seed: int, n: int) -> None:
        """To the bit: in a batch, in the same batch shuffled, with half of the others, and alone."""
        w = world(seed)
        ready, (x, eligible) = posterior(policy, w), questions(w, n, seed)
        whole, order = ready.choose_many(x, eligible), np.random.default_rng(seed).permutation(n)
        for rows in (order, order[::2], order[:1]):
            for some, all_ in zip(ready.choose_many(x[rows], eligible[rows]), whole, strict=True):
                assert some.tobytes() == all_[rows].tobytes()

    @_of_link("logit")
    @_checked
    @given(seed=seeds)
    def test_logistic_sites_depend_on_order_but_their_sums_do_not(self, policy: Policy, seed: int) -> None:
        """What assumed density filtering does not promise, and what recording its sites keeps: a rebuild is exact."""
        w = world(seed, most=60)
        n, k, x = len(w.x), len(w.arms), design(policy, w)
        tau, nu = policy.sites(untaught(policy, w), w.facts, x, w.arm, w.reward)
        assert ((tau >= 0) & (tau <= 0.25)).all()
        assert (np.abs(nu) <= 1).all()
        order = np.random.default_rng(seed).permutation(n)
        once = policy.sums(k, x, w.arm, tau, nu, w.reward)
        again = policy.sums(k, x[order], w.arm[order], tau[order], nu[order], w.reward[order])
        assert again.digest() == once.digest()

    @_of_link("logit")
    @_checked
    @given(seed=seeds)
    def test_logistic_learning_in_batches_is_learning_in_one(self, policy: Policy, seed: int) -> None:
        """In the same order, cut anywhere: equal to rounding of the sums. A policy that learns its prior from the sums
        looks at them once for each batch: this case is left out.
        """
        if self.learns_its_prior(policy):
            return
        w = world(seed, most=60)
        cut, x, nothing = len(w.x) // 3, design(policy, w), untaught(policy, w)
        whole = np.array(policy.sites(nothing, w.facts, x, w.arm, w.reward))
        first = np.array(policy.sites(nothing, w.facts, x[:cut], w.arm[:cut], w.reward[:cut]))
        known = policy.sums(len(w.arms), x[:cut], w.arm[:cut], first[0], first[1], w.reward[:cut])
        rest = np.array(policy.sites(known, w.facts, x[cut:], w.arm[cut:], w.reward[cut:]))
        np.testing.assert_allclose(np.concatenate([first, rest], axis=1), whole, rtol=0, atol=1e-5)

    @_of_link("identity")
    @_checked
    @given(seed=seeds, data=st.data())
    def test_what_is_learned_does_not_depend_on_order_or_batches(
        self, policy: Policy, seed: int, data: st.DataObject
    ) -> None:
        """These policies are exact in their sums: a site depends on its own row only."""
        w = world(seed, most=40)
        n = len(w.x)
        order = np.array(data.draw(st.permutations(range(n))), dtype=int)
        cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
        batches = [learned(policy, w, batch) for batch in np.split(order, cuts)]
        assert reduce(add, batches, untaught(policy, w)).digest() == learned(policy, w).digest()

    def test_a_policy_is_a_frozen_value_that_survives_its_bytes(self, policy: Policy) -> None:
        data = msgspec.json.encode(policy)
        assert msgspec.json.decode(data, type=self.declared(policy)) == policy
        assert hash(policy) == hash(msgspec.json.decode(data, type=type(policy)))


class LearnerContract(_OfPolicies):
    """Contract of policies that learn each arm apart and draw by what they know, to subclass with `policies` set: a
    dearer arm is chosen less, arms of equal worth share equally before any data, and with data the better arm wins and
    doubt shrinks.
    """

    @_checked
    @given(seed=seeds)
    def test_a_dearer_arm_is_chosen_less(self, policy: Policy, seed: int) -> None:
        w = world(seed)
        everything = np.ones_like(w.eligible)
        dearer = w._replace(facts=w.facts._replace(cost=w.facts.cost + 0.05 * np.eye(len(w.arms))[0]))
        before = posterior(policy, w).choose(w.context, everything).propensity
        after = posterior(policy, dearer).choose(w.context, everything).propensity
        assert after[0] <= before[0] + 1e-7
        assert (after[1:] >= before[1:] - 1e-7).all()

    @pytest.mark.parametrize("first", [(0.8, 0.0), (1.0, 0.05)], ids=["gain", "cost"])
    def test_of_two_arms_alike_the_one_that_is_worth_less_is_chosen_less(
        self, policy: Policy, first: tuple[float, float]
    ) -> None:
        ready = policy.posterior(empty(2, 1), facts(np.array([first[0], 1.0]), np.array([first[1], 0.0])))
        assert ready.choose(np.ones(1), np.ones(2, dtype=bool)).propensity[0] < 0.499

    def test_before_any_data_arms_of_equal_worth_share_equally(self, policy: Policy) -> None:
        ready = policy.posterior(empty(6, 3), plain(6))
        p = ready.choose(np.array([1.0, 0.5, -0.5]), np.ones(6, dtype=bool)).propensity
        np.testing.assert_allclose(p, 1 / 6, rtol=0, atol=1e-7)

    def test_with_data_the_better_arm_wins_and_doubt_shrinks(self, policy: Policy) -> None:
        def after(n: int) -> Any:
            reward = np.tile([0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0], n)  # arm 0: 2 of 5; arm 1: 3 of 5
            x, arm = np.ones((10 * n, 1)), np.tile([0, 1, 0, 1, 0, 1, 0, 1, 0, 1], n)
            tau, nu = policy.sites(empty(2, 1), plain(2), x, arm, reward)
            belief = sites(2, x, arm, tau, nu, reward)
            return policy.posterior(belief, plain(2)).choose(np.ones(1), np.ones(2, dtype=bool))

        few, many = after(1), after(300)
        assert 0.5 < few.propensity[1] < 0.999 < many.propensity[1]
        assert (many.sd < few.sd).all()
        np.testing.assert_allclose(many.mean, [0.4, 0.6], atol=0.02)
