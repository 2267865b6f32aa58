"""The contract of a search space."""

from __future__ import annotations

import itertools
import json
import pickle
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from nas import cost, encoding
from nas.architecture import Architecture
from nas.builder import FixedBuilder
from nas.components import create, describe
from nas.errors import InvalidArchitecture, UnsupportedRequest
from nas.space import (
    SearchSpace,
    count,
    crossover,
    enumerate_architectures,
    format_architecture,
    from_picks,
    mutate,
    neighbours,
    network,
    parse,
    sample,
    validate,
)
from nas.testing.compare import first_difference
from nas.testing.process import in_another_process


class SpaceContract(ABC):
    """What every search space holds. Give ``space``, and ``small`` where there is a small one.

    Attributes:
        samples: how many random architectures a law of the encoding is tried on.
        networks: how many are built.
        most_neighbours: how many neighbours of one architecture are looked at.
    """

    samples: ClassVar[int] = 30
    networks: ClassVar[int] = 8
    most_neighbours: ClassVar[int] = 40

    @abstractmethod
    def space(self) -> SearchSpace:
        """The space, with networks small enough to be run in a moment."""

    def small(self) -> SearchSpace | None:
        """One of the same kind with some thousands of architectures at most, to be listed."""
        return None

    def gradient_reaches(self, space: SearchSpace, arch: Architecture, parameter: str) -> bool:
        """Whether a parameter of a canonical architecture's network takes part in its output.

        Override it for a space whose canonical form keeps what leads nowhere.
        """
        return True

    # ------------------------------------------------------------------- its description

    def test_is_named_with_a_version(self) -> None:
        name, _, version = self.space().name.rpartition("/v")
        assert name
        assert version.isdigit()

    def test_choices_have_labels_of_their_own(self) -> None:
        labels = [choice.label for choice in self.space().choices]
        assert labels
        assert len(set(labels)) == len(labels)

    def test_conditions_ask_for_options_of_earlier_choices(self) -> None:
        earlier: dict[str, Any] = {}
        for choice in self.space().choices:
            for label, options in choice.conditions():
                assert label in earlier, f"{choice.label!r} depends on {label!r}, not before it"
                for option in options:
                    earlier[label].index(option)
            earlier[choice.label] = choice

    def test_input_and_classes_are_numbers(self) -> None:
        space = self.space()
        assert space.input
        assert all(isinstance(size, int) and size > 0 for size in space.input)
        assert isinstance(space.classes, int)
        assert space.classes > 0

    def test_description_makes_the_same_space(self) -> None:
        space = self.space()
        again = _rebuilt(space)
        assert describe(again) == describe(space)
        assert again.name == space.name
        assert again.choices == space.choices

    def test_is_picklable(self) -> None:
        space = self.space()
        copy: SearchSpace = pickle.loads(pickle.dumps(space))
        assert copy.choices == space.choices
        for arch in self._sample(space):
            validate(copy, arch)

    # -------------------------------------------------------------------------- the walk

    def test_random_walks_never_dead_end(self) -> None:
        space = self.space()
        by_label = {choice.label: choice for choice in space.choices}
        rng = np.random.default_rng(1)
        for _ in range(self.samples):
            made: dict[str, Any] = {}
            while (step := space.legal(dict(made))) is not None:
                choice, options = step
                assert choice == by_label[choice.label]
                assert choice.label not in made
                assert choice.active(made)
                assert options, f"no legal option for {choice.label!r} after {made}"
                assert set(options) <= set(choice.options)
                assert len(set(options)) == len(options)
                made[choice.label] = options[int(rng.integers(len(options)))]
            validate(space, Architecture(space.name, tuple(made.items())))

    def test_legal_looks_at_the_prefix_alone(self) -> None:
        space = self.space()
        for arch in self._sample(space, 5):
            made: dict[str, Any] = {}
            for label, option in arch.picks:
                first, second = space.legal(dict(made)), space.legal(dict(made))
                assert first == second
                assert first is not None
                assert first[0].label == label, "picks are not in the order in which they are made"
                made[label] = option
            assert space.legal(made) is None

    def test_samples_are_legal_and_reproducible(self) -> None:
        space = self.space()
        archs = self._sample(space)
        for arch in archs:
            validate(space, arch)
        assert not first_difference(archs, self._sample(space))
        assert len(set(archs)) > 1

    def test_mutation_stays_inside_and_differs(self) -> None:
        space, rng = self.space(), np.random.default_rng(2)
        for arch in self._sample(space):
            child = mutate(space, arch, rng)
            validate(space, child)
            assert child != arch

    def test_crossover_stays_inside_and_keeps_what_parents_share(self) -> None:
        space, rng = self.space(), np.random.default_rng(3)
        archs = self._sample(space)
        for first, second in itertools.pairwise(archs):
            validate(space, crossover(space, first, second, rng))
        for arch in archs:
            assert crossover(space, arch, arch, rng) == arch

    def test_neighbours_are_legal_distinct_and_mutual(self) -> None:
        space = self.space()
        for arch in self._sample(space, 4):
            near = list(itertools.islice(neighbours(space, arch), self.most_neighbours))
            assert near
            assert len(set(near)) == len(near)
            assert arch not in near
            for other in near:
                validate(space, other)
                both = set(arch) & set(other)
                assert sum(arch[label] != other[label] for label in both) == 1
            # All neighbours of a neighbour can be many: the last one taken stands for them.
            back = itertools.islice(neighbours(space, near[-1]), 200_000)
            assert any(other == arch for other in back)

    def test_count_equals_the_number_listed(self) -> None:
        space = self.small()
        if space is None:
            pytest.skip("no small space is given")
        listed = list(enumerate_architectures(space))
        assert count(space) == len(listed) == len(set(listed))
        for arch in listed[:: max(1, len(listed) // 200)]:
            validate(space, arch)

    def test_canonical_is_legal_and_idempotent(self) -> None:
        space = self.space()
        for arch in self._sample(space, 5 * self.samples):
            canonical = space.canonical(arch)
            validate(space, canonical)
            assert space.canonical(canonical) == canonical

    # ------------------------------------------------------------------- writing and reading

    def test_text_and_json_are_read_back(self) -> None:
        space = self.space()
        for arch in self._sample(space):
            for text in (format_architecture(space, arch), str(arch), arch.to_json()):
                again = parse(space, text)
                assert again == arch
                assert again.digest() == arch.digest()

    def test_nonsense_is_refused(self) -> None:
        space = self.space()
        arch = self._sample(space, 1)[0]
        label, option = arch.picks[0]
        for picks in (arch.picks[1:], (*arch.picks, ("no such choice", 1))):
            with pytest.raises(InvalidArchitecture):
                from_picks(space, dict(picks))
        with pytest.raises(InvalidArchitecture, match="no such option"):
            from_picks(space, arch.as_dict() | {label: "no such option"})
        with pytest.raises(InvalidArchitecture, match="another/v1"):
            network(space, Architecture("another/v1", ((label, option),)))
        with pytest.raises(InvalidArchitecture):
            parse(space, "no such text")

    def test_digests_and_samples_are_equal_in_another_process(self) -> None:
        space = self.space()
        here = fingerprints(describe(space), self.samples)
        there = in_another_process(
            "nas.testing.space:fingerprints", space=describe(space), n=self.samples
        )
        assert not first_difference(here, there)

    def test_encodings_are_decoded_back(self) -> None:
        space = self.space()
        size = encoding.vocabulary_size(space)
        for arch in self._sample(space):
            vector = encoding.one_hot(space, arch)
            assert vector.shape == (size,)
            assert vector.sum() == len(arch.picks)
            assert encoding.from_one_hot(space, vector) == arch
            positions = encoding.ordinal(space, arch)
            assert positions.shape == (len(space.choices),)
            assert encoding.from_ordinal(space, positions) == arch
            sequence = encoding.tokens(space, arch)
            assert all(0 <= token < size for token in sequence)
            assert encoding.from_tokens(space, sequence) == arch

    def test_features_have_one_form(self) -> None:
        space = self.space()
        size, names = encoding.vocabulary_size(space), encoding.feature_names(space)
        assert len(set(names)) == len(names)
        for arch in self._sample(space):
            vector = encoding.features(space, arch)
            assert vector.shape == (len(names),)
            assert vector.dtype == np.float32
            assert ((vector >= 0) & (vector <= 1)).all()
            assert encoding.from_one_hot(space, vector[:size]) == arch

    def test_graphs_have_one_form(self) -> None:
        space = self.space()
        archs = self._sample(space, 10)
        if not isinstance(space, encoding.HasGraphs):
            for encode in (encoding.adjacency, encoding.graph_tensors, encoding.path_encoding):
                with pytest.raises(UnsupportedRequest, match=space.name):
                    encode(space, archs[0])
            return
        longest = 1
        if isinstance(space, encoding.HasPaths):
            longest = space.longest_path
        else:
            with pytest.raises(UnsupportedRequest, match=space.name):
                encoding.path_encoding(space, archs[0])
        names = list(space.graphs(archs[0]))
        number = len(names) * encoding.path_count(space, longest)
        kinds = ("input", "output", *space.graph_operations)
        for arch in archs:
            graphs = space.graphs(arch)
            assert list(graphs) == names
            if number <= 20_000:  # more take too long to list
                assert encoding.path_encoding(space, arch, longest).shape == (number,)
            tensors, matrices = encoding.graph_tensors(space, arch), encoding.adjacency(space, arch)
            for name, graph in graphs.items():
                (operations, edge_index), matrix = tensors[name], matrices[name].matrix
                assert tuple(kinds[i] for i in operations.argmax(axis=1)) == graph.operations
                assert (operations.sum(axis=1) == 1).all()
                links = [(int(source), int(target)) for source, target in edge_index.T]
                assert links == sorted(graph.links)
                assert (np.tril(matrix) == 0).all()
                assert links == [(int(a), int(b)) for a, b in np.argwhere(matrix)]

    # -------------------------------------------------------------------------- networks

    def test_networks_classify(self) -> None:
        space = self.space()
        for arch in self._sample(space, self.networks):
            model = network(space, arch)
            x = torch.randn(2, *space.input)
            for train in (True, False):
                out = model.train(train)(x)
                assert out.shape == (2, space.classes)
                assert torch.isfinite(out).all()

    def test_gradients_reach_the_parameters(self) -> None:
        space = self.space()
        for arch in map(space.canonical, self._sample(space, self.networks)):
            model = network(space, arch)
            model(torch.randn(2, *space.input)).square().sum().backward()
            for name, parameter in model.named_parameters():
                if self.gradient_reaches(space, arch, name):
                    assert parameter.grad is not None, f"{arch}: no gradient for {name}"
                    assert torch.isfinite(parameter.grad).all()

    def test_same_seed_same_weights(self) -> None:
        space = self.space()
        for arch in self._sample(space, 3):
            states = []
            for _ in range(2):
                torch.manual_seed(5)
                states.append(network(space, arch).state_dict())
            assert list(states[0]) == list(states[1])
            assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    def test_networks_share_nothing(self) -> None:
        space = self.space()
        arch = self._sample(space, 1)[0]
        one, other = network(space, arch), network(space, arch)
        assert not set(map(id, one.modules())) & set(map(id, other.modules()))
        assert not set(map(id, one.parameters())) & set(map(id, other.parameters()))

    def test_costs_equal_those_of_the_built_network(self) -> None:
        space = self.space()
        for arch in self._sample(space, self.networks):
            counted = cost.count(network(space, arch), space.input)
            assert cost.architecture_cost(space, arch) == counted
            both = (counted.parameters, counted.macs)
            assert cost.parameters_and_macs(space, arch) == both

    def test_builds_on_meta(self) -> None:
        space = self.space()
        for arch in self._sample(space, self.networks):
            with torch.device("meta"):
                shapes = network(space, arch)
            assert all(tensor.is_meta for tensor in shapes.state_dict().values())
            assert _shapes(shapes) == _shapes(network(space, arch))

    def test_tensors_map_one_to_one_to_the_largest_network(self) -> None:
        space = self.space()
        known: dict[str, tuple[int, torch.dtype]] = {}
        for arch in self._sample(space, self.networks):
            builder = FixedBuilder(space, arch)
            with torch.device("meta"):
                model = space.build(builder)
            state = model.state_dict()
            names = builder.shared_names(model)
            assert list(names) == list(state)
            assert len(set(names.values())) == len(names)
            for name, tensor in state.items():
                kind = (tensor.dim(), tensor.dtype)
                assert known.setdefault(names[name], kind) == kind, (
                    f"{names[name]} has {kind} in {arch}, {known[names[name]]} elsewhere"
                )

    # ---------------------------------------------------------------------------- helpers

    def _sample(self, space: SearchSpace, n: int | None = None) -> list[Architecture]:
        rng = np.random.default_rng(0)
        return [sample(space, rng) for _ in range(self.samples if n is None else n)]


def fingerprints(space: Any, n: int) -> list[list[str]]:
    """Digest and text of random architectures of a described space, and of their kin."""
    made: SearchSpace = create("spaces", space, "space")
    rng = np.random.default_rng(11)
    lines: list[list[str]] = []
    for _ in range(n):
        arch = sample(made, rng)
        child = mutate(made, arch, rng)
        mixed = crossover(made, arch, child, rng)
        near = next(neighbours(made, arch))
        lines.extend(
            [one.digest(), format_architecture(made, one)]
            for one in (arch, child, mixed, near, made.canonical(arch))
        )
    return lines


def _rebuilt(space: SearchSpace) -> SearchSpace:
    made: SearchSpace = create("spaces", json.loads(json.dumps(describe(space))), "space")
    return made


def _shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
