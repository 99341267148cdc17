"""What is shown of an atlas: every head has its place, in the page and in both images."""

from __future__ import annotations

import re
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pagopt.atlas.drawing import COLOURS, draw_effects, draw_pictures
from pagopt.atlas.findings import MOVED, Effect, Findings
from pagopt.atlas.page import change, small_pictures, write_page
from pagopt.recipe import Recipe
from pagopt.report.palette import step_class
from tests.report.elements import Elements


def picture(key: str) -> Image.Image:
    """A colour that says whose it is."""
    name, task = key.split()
    number = zlib.crc32(name.encode())
    return Image.new("RGB", (48, 32), (number % 256, number // 256 % 256, 40 * int(task)))


@pytest.fixture
def page(made_up: Findings, tmp_path: Path) -> tuple[Elements, str]:
    write_page(made_up, small_pictures(made_up, picture), tmp_path / "atlas.html")
    text = (tmp_path / "atlas.html").read_text(encoding="utf-8")
    return Elements(text), text


def test_every_head_has_a_picture_for_every_prompt(page: tuple[Elements, str], made_up: Findings):
    elements, _ = page
    for name in made_up.images:
        assert len(elements.all("button", **{"data-head": name})) == 2, name
    buttons = elements.all("button")
    assert len(buttons) == 2 * len(made_up.images)
    shots = [
        attributes for tag, attributes in elements.elements if tag == "img" and attributes.get("alt") in made_up.images
    ]
    assert len({shot["src"] for shot in shots}) == 2 * len(made_up.images), "all of them are different"


def test_every_effect_has_a_cell_that_leads_to_its_pictures(page: tuple[Elements, str], made_up: Findings):
    elements, text = page
    for name in made_up.images:
        cells = [a for tag, a in elements.elements if tag in {"rect", "g"} and a.get("data-head") == name]
        assert len(cells) == 2, name
    assert "L1.H2: +0.200 ± 0.010, p = 0.001" in text
    assert text.count("not drawn") == 2 * 3, "L1.H1, and two places of the second site"
    assert text.count('class="dot"') == 2


def test_it_asks_for_nothing_from_elsewhere_and_escapes_what_it_is_given(page: tuple[Elements, str]):
    _, text = page
    assert "default-src 'none'" in text
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert "a &lt;b&gt;" in text
    assert "<b>" not in text.replace("<b>pagopt</b>", "").replace("<b>a &lt;made&gt; up model</b>", "")
    assert "a &lt;made&gt; up model" in text


def test_it_says_how_to_use_a_head(page: tuple[Elements, str]):
    _, text = page
    code = re.search(r"<pre[^>]*><code>(.*?)</code>", text, re.DOTALL)
    assert code is not None
    line = re.sub(r"<[^>]*>", "", code[1]).replace("&#34;", '"').replace("&#39;", "'").splitlines()[0]
    call = re.search(r"Recipe\(.*\)(?=\):)", line)
    assert call is not None
    made = eval(call[0], {"Recipe": Recipe})
    assert '"L1.H0-2 L1.attn2.H0"' in text, "a layer's heads, for the script"
    assert made == Recipe("L1.attn2.H0", target="blur", target_options={"sigma": 2.0}, scale=2.0)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "2 of 6 heads change something measurable"),
        ({"L1.H2": Effect(0.2, 0.1, 0.3), "L0.H1": Effect(-0.1, 0.1, 0.4)}, "no single change is beyond chance"),
    ],
)
def test_the_headline_claims_what_was_tested(changed: dict[str, Effect], words: str, made_up: Findings, tmp_path: Path):
    effects = {**made_up.effects, "light": {**made_up.effects["light"], **changed}}
    write_page(replace(made_up, effects=effects), small_pictures(made_up, picture), tmp_path / "page.html")
    assert words in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_one_picture_is_no_test(made_up: Findings, tmp_path: Path):
    once = {
        label: {name: Effect(one.mean, float("nan")) for name, one in row.items()}
        for label, row in made_up.effects.items()
    }
    found = replace(made_up, effects=once, tasks=made_up.tasks[:1])
    write_page(found, small_pictures(found, picture), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "nothing can be tested" in text
    assert "nan" not in text.replace("nance", "")
    assert change(found, "light", "L1.H2") == "+0.20"


def test_a_single_head_is_not_compared_with_others(made_up: Findings, tmp_path: Path):
    effects = {label: {"L1.H2": row["L1.H2"]} for label, row in made_up.effects.items()}
    found = replace(made_up, effects=effects, images={"L1.H2": made_up.images["L1.H2"]})
    write_page(found, small_pictures(found, picture), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert ">1 of 1 head changes something measurable<" in text
    assert "perturbs all heads" not in text


def test_titles_stand_on_one_line(made_up: Findings):
    image = draw_effects(replace(made_up, effects={MOVED: made_up.effects[MOVED], "nnn": made_up.effects["light"]}))
    middle = image.width // 2

    def lowest(left: int, right: int) -> int:
        pixels = ((x, y) for x in range(left, right) for y in range(80))
        return max(y for x, y in pixels if image.getpixel((x, y)) == (29, 29, 31))

    assert abs(lowest(0, middle) - lowest(middle, image.width)) <= 1, "but for round letters"


def test_pictures_stand_in_their_places(made_up: Findings):
    image = draw_pictures(made_up, small_pictures(made_up, picture))
    pixels = {image.getpixel((x, y)) for x in range(0, image.width, 4) for y in range(0, image.height, 4)}
    for name in made_up.images:
        for task in (0, 2):
            assert picture(f"{name} {task}").getpixel((0, 0)) in pixels, (name, task)
        assert picture(f"{name} 1").getpixel((0, 0)) not in pixels, "second seeds are not shown"


def test_effects_have_their_colours(made_up: Findings):
    def rgb(colour: str) -> tuple[int, ...]:
        return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))

    image = draw_effects(made_up)
    limit = made_up.limits["light"]
    pixels = [image.getpixel((x, y)) for x in range(image.width) for y in range(image.height)]
    assert pixels.count(rgb(COLOURS["p10"])) > 2000
    assert pixels.count(rgb(COLOURS[step_class(-0.1, limit)])) > 2000 - 100
    untested = {MOVED: made_up.effects[MOVED]}
    assert draw_effects(replace(made_up, effects=untested)).height < image.height


@pytest.mark.parametrize(("blocks", "prompts"), [(24, 2), (57, 1)])
def test_large_models_fit(blocks: int, prompts: int, made_up: Findings, tmp_path: Path):
    """24 heads a block, as in SD3 and FLUX.1: smaller cells, fewer prompts, and no image that is too wide."""
    names = [f"L{block}.H{head}" for block in range(blocks) for head in range(24)]
    names += [f"L{block}" for block in range(blocks)]
    found = replace(
        made_up,
        blocks=blocks,
        heads=24,
        tasks=[("a", 0), ("b", 1), ("c", 2)],
        effects={label: dict.fromkeys(names, Effect(0.1, 0.01, 1.0)) for label in (MOVED, *"abcdefg")},
        means=dict.fromkeys((MOVED, *"abcdefg"), 0.0),
        perturbed={name: name for name in names},
        images={name: [f"{name} {task}" for task in range(3)] for name in names},
        plain=["plain 0", "plain 1", "plain 2"],
    )
    small = small_pictures(found, picture)
    assert len(small) == prompts * (1 + 25 * blocks)
    assert draw_pictures(found, small).width <= 2400
    assert draw_effects(found).width <= 2400
    write_page(found, small, tmp_path / "atlas.html")
    assert (tmp_path / "atlas.html").read_text(encoding="utf-8").count('class="plate"') == prompts


def test_layers_of_another_site_alone_stand_beside_it(made_up: Findings, tmp_path: Path):
    names = ["L1.attn2.H0", "L1"]
    found = replace(
        made_up,
        effects={label: {name: row[name] for name in names} for label, row in made_up.effects.items()},
        images={name: made_up.images[name] for name in names},
    )
    small = small_pictures(found, picture)
    write_page(found, small, tmp_path / "atlas.html")
    page = Elements((tmp_path / "atlas.html").read_text(encoding="utf-8"))
    assert [button["data-head"] for button in page.all("button")] == names * 2
    image = draw_pictures(found, small)
    pixels = {image.getpixel((x, y)) for x in range(0, image.width, 4) for y in range(0, image.height, 4)}
    assert picture("L1 0").getpixel((0, 0)) in pixels


def test_long_prompts_do_not_cover_their_neighbours(made_up: Findings):
    long = replace(made_up, tasks=[("many words of a prompt " * 8, 0), ("b", 1)] * 2)
    small = small_pictures(long, picture)
    image = draw_pictures(long, small)
    assert image.size == draw_pictures(replace(long, tasks=[("a", 0), ("b", 1)] * 2), small).size
    second = draw_pictures(replace(long, tasks=[("a", 0), ("b", 1)] * 2), small)
    box = (image.width // 2, 0, image.width, 70)
    assert image.crop(box).tobytes() == second.crop(box).tobytes()
