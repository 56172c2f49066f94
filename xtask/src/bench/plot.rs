//! A row as bars: medians, with whiskers from the minimum to the maximum.

use anyhow::{Result, anyhow};
use plotters::{
    prelude::{IntoDrawingArea, PathElement, RGBColor, Rectangle, SVGBackend, Text, WHITE},
    style::{
        Color, IntoFont, ShapeStyle, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::stats::{Spread, number};

/// One bar.
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) value: Spread,
    pub(super) ours: bool,
}

/// The plot as SVG, one bar below the other.
pub(super) fn svg(title: &str, unit: &str, bars: &[Bar]) -> Result<String> {
    let most = bars.iter().map(|bar| bar.value.maximum).fold(0.0, f64::max);
    let step = step(most);
    let end = (most / step).ceil().max(1.0) * step;
    let at = |value: f64| LEFT + (value / end * f64::from(WIDTH - LEFT - RIGHT)).round() as i32;
    let bottom = TOP + LINE * i32::try_from(bars.len())?;
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, (WIDTH.unsigned_abs(), (bottom + BOTTOM).unsigned_abs()))
        .into_drawing_area();
    let failed = |error| anyhow!("cannot draw {title}: {error}");
    area.fill(&WHITE).map_err(failed)?;
    area.draw(&Text::new(title.to_owned(), (8, 18), style(18, HPos::Left))).map_err(failed)?;
    for index in 0..=(end / step).round() as i32 {
        let value = f64::from(index) * step;
        area.draw(&PathElement::new([(at(value), TOP - 4), (at(value), bottom)], GRID)).map_err(failed)?;
        let last = index == (end / step).round() as i32;
        let label = if last { format!("{} {unit}", plain(value)) } else { plain(value) };
        area.draw(&Text::new(label, (at(value), bottom + 14), style(15, HPos::Center))).map_err(failed)?;
    }
    for (bar, line) in bars.iter().zip(0..) {
        let (top, Spread { median, minimum, maximum }) = (TOP + LINE * line, bar.value);
        let (middle, colour) = (top + LINE / 2 - 2, if bar.ours { OURS } else { THEIRS });
        let body = Rectangle::new([(LEFT, top + 2), (at(median), top + LINE - 6)], colour.filled());
        area.draw(&body).map_err(failed)?;
        for whisker in [
            [(at(minimum), middle), (at(maximum), middle)],
            [(at(minimum), middle - 4), (at(minimum), middle + 4)],
            [(at(maximum), middle - 4), (at(maximum), middle + 4)],
        ] {
            area.draw(&PathElement::new(whisker, INK)).map_err(failed)?;
        }
        area.draw(&Text::new(bar.label.clone(), (LEFT - 8, middle), style(16, HPos::Right))).map_err(failed)?;
        let beside = (at(maximum) + 6, middle);
        area.draw(&Text::new(number(median), beside, style(15, HPos::Left))).map_err(failed)?;
    }
    area.present().map_err(failed)?;
    drop(area);
    Ok(text)
}

const WIDTH: i32 = 760;
const LEFT: i32 = 250;
/// Room for the number behind the longest bar.
const RIGHT: i32 = 70;
const TOP: i32 = 36;
const LINE: i32 = 26;
const BOTTOM: i32 = 28;

const OURS: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const THEIRS: RGBColor = RGBColor(0xb4, 0xb8, 0xbd);
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const GRID: ShapeStyle =
    ShapeStyle { color: plotters::style::RGBAColor(0xdd, 0xdd, 0xdd, 1.0), filled: false, stroke_width: 1 };

fn style(size: i32, side: HPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK).pos(Pos::new(side, VPos::Center))
}

/// A round distance between the lines of the grid, so that there are about five of them.
fn step(most: f64) -> f64 {
    if most <= 0.0 {
        return 1.0;
    }
    let rough = most / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let digit = [1.0, 2.0, 5.0, 10.0].into_iter().find(|digit| digit * power >= rough * 0.999);
    digit.unwrap_or(10.0) * power
}

/// A round number without what rounding left behind.
fn plain(value: f64) -> String {
    format!("{}", (value * 1e6).round() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        assert_eq!([1431.0, 5.0, 0.52, 250.0, 0.0].map(step), [500.0, 1.0, 0.2, 50.0, 1.0]);
        assert_eq!([plain(0.1 * 3.0), plain(500.0)], ["0.3", "500"]);
    }

    #[test]
    fn a_plot_shows_each_bar_with_its_name_and_value() {
        let bar = |label: &str, median: f64, ours| Bar {
            label: label.into(),
            value: Spread { median, minimum: median - 1.0, maximum: median + 1.0 },
            ours,
        };
        let svg = svg("A < B", "MB/s", &[bar("ftpq", 1200.0, true), bar("scp", 300.0, false)]).unwrap();
        for word in ["<svg", "ftpq", "scp", "1,200", "300", "1500 MB/s", "A &lt; B", "</svg>"] {
            assert!(svg.contains(word), "{word} in {svg}");
        }
    }
}
