//! A plot as SVG: axes, curves, bands, and marks of moments.

use std::fmt::Write as _;

/// Colours of curves that the style sheet has; more curves begin anew.
pub const COLOURS: usize = 6;
const WIDTH: f64 = 860.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 22.0;
/// Names of marks stand above each other in so many rows at most.
const ROWS_MAX: usize = 4;
const ROW: f64 = 11.0;
const BOTTOM: f64 = 42.0;

/// How values become places.
#[derive(Clone, Copy, Debug)]
pub enum Scale {
    /// From the first to the second.
    Linear(f64, f64),
    /// The same by orders of magnitude; both above zero.
    Log(f64, f64),
}

impl Scale {
    /// 0 to 1; what lies beyond lies on the edge.
    fn place(self, value: f64) -> f64 {
        let place = match self {
            Self::Linear(from, to) => (value - from) / (to - from),
            Self::Log(from, to) => (value.max(from) / from).ln() / (to / from).ln(),
        };
        if place.is_finite() {
            place.clamp(0.0, 1.0)
        } else {
            0.0
        }
    }

    /// Values that are labelled.
    fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear(from, to) => {
                let step = nice((to - from) / 5.0);
                let ticks = (0..12_u32).map(|n| (from / step).ceil() * step + f64::from(n) * step);
                ticks.filter(|tick| *tick <= to * (1.0 + 1e-9)).collect()
            }
            // Of so little there would be one round value, or none.
            Self::Log(from, to) if to / from < 6.0 => Self::Linear(from, to).ticks(),
            Self::Log(from, to) => {
                let decades = (to / from).log10();
                let factors: &[f64] = match decades {
                    ..=2.2 => &[1.0, 2.0, 5.0],
                    _ => &[1.0],
                };
                let first = 10_f64.powf(from.log10().floor());
                let decades = (0..16).map(|n| first * 10_f64.powi(n));
                let all = decades.flat_map(|decade| factors.iter().map(move |f| decade * f));
                all.filter(|tick| (from * (1.0 - 1e-9)..=to * (1.0 + 1e-9)).contains(tick))
                    .collect()
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn nice(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-12).log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power);
    steps
        .into_iter()
        .find(|step| *step >= least * (1.0 - 1e-9))
        .unwrap_or(power * 10.0)
}

/// One direction.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// How values become places.
    pub scale: Scale,
    /// What it shows, with its unit.
    pub title: &'static str,
    /// The labels.
    pub label: fn(f64) -> String,
}

/// A plot that is being drawn.
#[derive(Debug)]
pub struct Chart {
    x: Axis,
    y: Axis,
    height: f64,
    top: f64,
    body: String,
}

impl Chart {
    /// Axes and grid, with `rows` for the names of marks.
    pub fn new(x: Axis, y: Axis, height: f64, rows: usize) -> Self {
        let top = TOP + ROW * (rows.clamp(1, ROWS_MAX) - 1) as f64;
        let height = height + top - TOP;
        let mut chart = Self {
            x,
            y,
            height,
            top,
            body: String::new(),
        };
        let (right, bottom) = (WIDTH - RIGHT, height - BOTTOM);
        let mut body = String::new();
        for tick in y.scale.ticks() {
            let place = chart.y(tick);
            let _ = write!(
                body,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{place:.1}\" y2=\"{place:.1}\"/><text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 8.0,
                place + 4.0,
                escape(&(y.label)(tick))
            );
        }
        for tick in x.scale.ticks() {
            let place = chart.x(tick);
            let _ = write!(
                body,
                "<line class=\"grid\" x1=\"{place:.1}\" x2=\"{place:.1}\" y1=\"{top:.1}\" y2=\"{bottom}\"/><text class=\"tick\" text-anchor=\"middle\" x=\"{place:.1}\" y=\"{:.1}\">{}</text>",
                bottom + 16.0,
                escape(&(x.label)(tick))
            );
        }
        let _ = write!(
            body,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/><text class=\"title\" x=\"2\" y=\"12\">{}</text><text class=\"title\" text-anchor=\"end\" x=\"{right}\" y=\"{:.1}\">{}</text>",
            escape(y.title),
            bottom + 34.0,
            escape(x.title)
        );
        chart.body = body;
        chart
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.scale.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let bottom = self.height - BOTTOM;
        bottom - self.y.scale.place(value) * (bottom - self.top)
    }

    /// A line through points; `None` interrupts it.
    pub fn curve(&mut self, colour: usize, points: &[Option<(f64, f64)>]) {
        let mut path = String::new();
        let mut pen = 'M';
        for point in points {
            let Some((x, y)) = *point else {
                pen = 'M';
                continue;
            };
            let _ = write!(path, "{pen}{:.1} {:.1}", self.x(x), self.y(y));
            pen = 'L';
        }
        let dash = colour / COLOURS % 3 + usize::from(colour % 2 == 1);
        let _ = write!(
            self.body,
            "<path class=\"curve c{} d{dash}\" d=\"{path}\"/>",
            colour % COLOURS
        );
    }

    /// What lies between two heights, in steps from one place to the next.
    pub fn band(&mut self, colour: usize, steps: &[Step], name: &str) {
        let mut path = String::new();
        for step in steps.iter().filter(|step| step.to > step.from) {
            let (left, right) = (self.x(step.left), self.x(step.right));
            let (bottom, top) = (self.y(step.from), self.y(step.to));
            let _ = write!(
                path,
                "M{left:.1} {bottom:.1}V{top:.1}H{right:.1}V{bottom:.1}Z"
            );
        }
        let _ = write!(
            self.body,
            "<path class=\"band f{}\" d=\"{path}\"><title>{}</title></path>",
            colour % COLOURS,
            escape(name)
        );
    }

    /// A moment in which something happened.
    pub fn mark(&mut self, colour: Option<usize>, x: f64, mark: &Mark<'_>) {
        let place = self.x(x);
        let (top, bottom) = (self.top, self.height - BOTTOM);
        let _ = write!(
            self.body,
            "<g class=\"mark {} {}\"><title>{}</title><line x1=\"{place:.1}\" x2=\"{place:.1}\" y1=\"{top:.1}\" y2=\"{bottom}\"/><text text-anchor=\"middle\" x=\"{place:.1}\" y=\"{:.1}\">{}</text></g>",
            mark.class,
            colour.map_or_else(String::new, |colour| format!("c{}", colour % COLOURS)),
            escape(mark.title),
            top - 4.0 - ROW * (mark.row % ROWS_MAX) as f64,
            escape(mark.name)
        );
    }

    /// The plot. With `style` it stands alone.
    pub fn svg(self, id: &str, about: &str, style: Option<&str>) -> String {
        let style = style
            .map(|style| format!("<style>{style}</style>"))
            .unwrap_or_default();
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" id=\"{id}\" class=\"plot\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">{style}{}</svg>\n",
            self.height,
            escape(about),
            self.body
        )
    }
}

/// A part of a band.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Where it begins.
    pub left: f64,
    /// Where it ends.
    pub right: f64,
    /// Its lower edge.
    pub from: f64,
    /// Its upper edge.
    pub to: f64,
}

/// How a moment is marked.
#[derive(Clone, Copy, Debug)]
pub struct Mark<'a> {
    /// `lost`, `back` or `ana`.
    pub class: &'a str,
    /// Stands above the line.
    pub name: &'a str,
    /// Shown under the pointer.
    pub title: &'a str,
    /// Rows of names below its own.
    pub row: usize,
}

/// A text as markup has it.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // Markup cannot have them, not even escaped.
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(
            Scale::Linear(0.0, 97.0).ticks(),
            [0.0, 20.0, 40.0, 60.0, 80.0]
        );
        assert_eq!(Scale::Log(20.0, 400.0).ticks(), [20.0, 50.0, 100.0, 200.0]);
        assert_eq!(
            Scale::Log(18.0, 28.0).ticks(),
            [18.0, 20.0, 22.0, 24.0, 26.0, 28.0]
        );
        assert_eq!(Scale::Log(1.0, 1e6).ticks().len(), 7);
        assert_eq!((nice(3.0), nice(0.21), nice(1.0)), (5.0, 0.25, 1.0));
        for scale in [Scale::Linear(0.0, 0.0), Scale::Log(1.0, 1.0)] {
            assert_eq!(scale.place(1.0), 0.0, "nothing is divided by nothing");
        }
    }

    #[test]
    fn texts_do_not_break_the_markup() {
        assert_eq!(escape("a<b>&\"\u{1}"), "a&lt;b&gt;&amp;&quot; ");
    }
}
