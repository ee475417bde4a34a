"""What all plots share: panels, and files that are the same for the same plot."""

from egrsd_jax.canvas import make_panels, plain, save


def test_panels_are_side_by_side_up_to_the_columns():
    figure, panels = make_panels(5, width=2.0, height=1.0, columns=3)
    assert figure.get_size_inches().tolist() == [6.0, 2.0]
    assert len(panels) == len(figure.axes) == 5
    assert make_panels(1, width=2.0, height=1.0)[0].get_size_inches().tolist() == [2.0, 1.0]


def test_the_same_plot_is_the_same_svg_and_a_name_may_have_dots(tmp_path):
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        figure, [axes] = make_panels(1)
        axes.bar([0, 1], [1, 2], hatch="///")
        axes.set_title(plain("$ 5"))
        save(figure, folder / "heatmap-0.3.png", svg=True)
        assert sorted(file.name for file in folder.iterdir()) == ["heatmap-0.3.png", "heatmap-0.3.svg"]
    assert (tmp_path / "a/heatmap-0.3.svg").read_bytes() == (tmp_path / "b/heatmap-0.3.svg").read_bytes()


def test_svg_is_written_where_it_is_asked_for(tmp_path):
    save(make_panels(1)[0], tmp_path / "a.png")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
