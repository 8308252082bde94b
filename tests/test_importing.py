import gc

import pytest

from tvm_bitenc.importing import without_collections


def test_garbage_is_searched_for_again_afterwards():
    assert gc.isenabled()
    with without_collections():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_import_that_fails_lets_the_search_go_on():
    with pytest.raises(ImportError), without_collections():
        raise ImportError
    assert gc.isenabled()


def test_who_has_switched_the_search_off_finds_it_off():
    gc.disable()
    try:
        with without_collections():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
