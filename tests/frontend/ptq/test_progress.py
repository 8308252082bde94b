"""Progress: a bar where wanted, a callback, silence."""

from tvm_bitenc.frontend.ptq.progress import progress_of


def test_a_bar_is_drawn_on_standard_error(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_of(True) as show:
        show(1, 2, "layer conv2")
    captured = capsys.readouterr()
    assert "layer conv2" in captured.err and not captured.out


def test_silence(capsys):
    with progress_of(False) as show:
        show(1, 2, "layer")
    assert capsys.readouterr() == ("", "")


def test_a_callback_is_called_as_it_is():
    def callback(*_arguments):
        pass

    with progress_of(callback) as show:
        assert show is callback
