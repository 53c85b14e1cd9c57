"""The stored comparisons of site_search: how their queries are drawn, and a part of them run again."""

from __future__ import annotations

import platform

import numpy as np
import pytest
import torch

from kexue_lib.checkpoints import load
from kexue_lib.checkpoints.interludes import docstrings as runs
from kexue_lib.checkpoints.interludes.site_search import QUERIES
from kexue_lib.interludes.site_search import BM25Index, tokenize

STORED, MADE_WITH = load("interludes/site_search")


@pytest.mark.parametrize("rule", runs.RULES)
def test_queries_are_drawn_from_the_document_wanted(rule: str):
    words = [f"word{i}" for i in range(14)]
    names = [["os", "path"], ["re"], ["short"]]
    texts = [[*words, "os", "an"], [*words[:12], *["often"] * 200], ["few", "words"]]
    of_name, of_text, by_count = runs.RULES[rule]
    drawn = runs.known_item_queries(names, texts, rule)
    assert len(drawn) == runs.PER_RULE
    for query, place in drawn:
        name, text = query[:of_name], query[of_name:]
        assert set(name) <= set(names[place])
        assert set(text) <= {word for word in texts[place] if len(word) > 2} - set(names[place])
        assert len(set(text)) == len(text) == of_text
    often = [("often" in query) for query, place in drawn if place == 1]
    assert sum(often) == len(often) if by_count else sum(often) < 0.5 * len(often)
    assert {place for _, place in drawn} == {0, 1}


def test_stored_questions_are_those_of_the_script():
    for kind, wanted in QUERIES.items():
        rows = STORED["book"]["kinds"][kind]
        assert {row["query"]: row["wanted"] for row in rows} == wanted
        assert len(rows) == 10


def test_ranks_in_the_docstrings_are_the_stored_ones():
    if MADE_WITH["python"] != platform.python_version():
        pytest.skip(f"the docstrings are those of Python {MADE_WITH['python']}")
    names, name_tokens, texts = runs.docstrings()
    assert len(names) == STORED["docstrings"]["documents"]
    index = BM25Index().fit([name + text for name, text in zip(name_tokens, texts)])
    for (query, wanted), rank in zip(runs.HAND_MADE.items(), STORED["docstrings"]["ranks"]["by hand"]["BM25"]):
        found = [names[doc] for doc, _ in index.search(tokenize(query), runs.DEPTH)]
        assert (found.index(wanted) + 1 if wanted in found else 0) == rank


def test_parameters_are_chosen_on_one_set_and_measured_on_another():
    sweep = STORED["sweep"]
    sets = sweep["grid"]["choose"], sweep["grid"]["measure"]
    chosen_on = np.mean(list(sets[0].values()), axis=0)
    row, column = np.unravel_index(chosen_on.argmax(), chosen_on.shape)
    assert sweep["chosen"] == [runs.K1[row], runs.B[column]]
    usual = runs.K1.index(runs.USUAL[0]), runs.B.index(runs.USUAL[1])
    for rule, ranks in sweep["ranks"].items():
        for name, place in (("chosen, both", (row, column)), ("usual, both", usual)):
            mean = np.mean([1 / rank if rank else 0 for rank in ranks[name]])
            assert mean == pytest.approx(sets[1][rule][place[0]][place[1]])
        assert sets[0][rule] != sets[1][rule]


def test_a_foreign_word_comes_from_the_next_query():
    queries = [(["a", "b"], 0), (["c", "d"], 1), (["e", "f"], 2)]
    assert runs._with_foreign_word(queries) == [(["a", "d"], 0), (["c", "f"], 1), (["e", "b"], 2)]


def test_ranks_of_scores_are_those_of_the_search():
    docs = [["a"] * (number % 3 + 1) + ["b"] * (number % 5) for number in range(20)]
    index, queries = BM25Index().fit(docs), [["a"], ["b"], ["a", "b"], ["none"]] * 20
    wanted = [number // 4 for number in range(80)]
    expected = [runs._rank(index.search(query, runs.DEPTH), doc) for query, doc in zip(queries, wanted)]
    assert runs._ranks(index.score_batch(queries), torch.tensor(wanted)).tolist() == expected


def test_weights_of_fields_are_not_chosen_at_the_edge_of_their_grid():
    fields = STORED["fields"]
    for way in ("joined", "added"):
        place = runs.WEIGHTS.index(fields[way]["chosen"])
        assert 0 < place < len(runs.WEIGHTS) - 1
        for rule, means in fields[way]["measure"].items():
            ranks = [int(rank) for rank in fields["ranks"][rule][way].split()]
            assert len(ranks) == runs.PER_RULE
            assert np.mean([1 / rank if rank else 0 for rank in ranks]) == pytest.approx(means[place], rel=1e-5)
