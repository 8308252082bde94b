"""Places in an arena."""

from hypothesis import given
from hypothesis import strategies as st

from tvm_bitenc.entry.arena import Block, place
from tvm_bitenc.runtime.size import ALIGNMENT, Size

SIZES = st.builds(Size, st.integers(1, 1000), st.just(0) | st.integers(0, 300))
SPANS = st.tuples(st.integers(0, 12), st.integers(0, 6))


@given(st.lists(st.tuples(SIZES, SPANS), max_size=12), st.integers(1, 5))
def test_blocks_that_live_at_once_lie_apart(drawn, batch):
    blocks = [Block(size, first, first + length) for size, (first, length) in drawn]
    total = place(blocks).of(batch)
    spans = [(b.offset.of(batch), b.offset.of(batch) + b.size.of(batch)) for b in blocks]
    for i, (block, (start, end)) in enumerate(zip(blocks, spans)):
        assert start % ALIGNMENT == 0 and start >= 0 and end <= total
        for other, (low, high) in zip(blocks[:i], spans):
            at_once = other.first <= block.last and block.first <= other.last
            assert not at_once or end <= low or high <= start


def test_memory_is_shared():
    chain = [Block(Size(64), i, i + 1) for i in range(10)]
    assert place(chain) == Size(128)


def test_the_largest_comes_first_and_small_ones_fill_gaps():
    blocks = [Block(Size(64), 0, 1), Block(Size(640), 1, 2), Block(Size(64), 2, 3)]
    assert place(blocks) == Size(704)
    assert [b.offset.fixed for b in blocks] == [640, 0, 640]
