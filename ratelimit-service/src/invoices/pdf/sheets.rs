//! Pages of rows of text: what a table needs of a PDF, on A4.

use anyhow::Context;
use krilla::Document;
use krilla::color::rgb;
use krilla::geom::{PathBuilder, Point, Rect};
use krilla::metadata::Metadata;
use krilla::page::PageSettings;
use krilla::paint::Fill;
use krilla::surface::Surface;
use krilla::text::{Font, TextDirection};
use ttf_parser::Face;

/// All lengths are in points: 72 to the inch.
const PAGE: (f32, f32) = (595.0, 842.0);
/// Where texts begin and end, sideways.
pub(super) const LEFT: f32 = 48.0;
pub(super) const RIGHT: f32 = PAGE.0 - 48.0;
const TOP: f32 = 54.0;
const BOTTOM: f32 = PAGE.1 - 64.0;
const FOOT: f32 = PAGE.1 - 40.0;
/// The most lines of a cell; what is longer ends with an ellipsis, so that a row fits on a page.
const MAX_CELL_LINES: usize = 40;

/// They are embedded, as far as they are used. What they have no sign for is shown as U+FFFD.
static REGULAR: &[u8] = include_bytes!("../fonts/DejaVuSans.ttf");
static BOLD: &[u8] = include_bytes!("../fonts/DejaVuSans-Bold.ttf");

/// How a text looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Style {
    Title,
    Heading,
    Strong,
    Plain,
    Small,
}

impl Style {
    fn size(self) -> f32 {
        match self {
            Style::Title => 20.0,
            Style::Heading => 11.0,
            Style::Strong | Style::Plain => 8.5,
            Style::Small => 7.0,
        }
    }

    /// From one baseline to the next.
    fn leading(self) -> f32 {
        self.size() * 1.4
    }

    fn color(self) -> rgb::Color {
        if self == Style::Small { rgb::Color::new(91, 100, 112) } else { rgb::Color::new(27, 31, 36) }
    }

    fn is_bold(self) -> bool {
        matches!(self, Style::Title | Style::Heading | Style::Strong)
    }
}

/// Where a cell's texts stand.
#[derive(Debug, Clone, Copy)]
pub(super) enum Column {
    /// From the first on, wrapped before the second.
    From(f32, f32),
    /// In one line each, up to this.
    UpTo(f32),
}

/// Texts below each other.
pub(super) struct Cell<'a> {
    pub(super) column: Column,
    pub(super) texts: Vec<(Style, &'a str)>,
}

/// What stands on a page.
enum Mark {
    /// With its left end and its baseline.
    Text { at: (f32, f32), style: Style, text: String },
    /// A line across, at this height.
    Rule(f32),
}

/// Pages that are being filled, from the top.
pub(super) struct Sheets {
    pages: Vec<Vec<Mark>>,
    y: f32,
    faces: [Face<'static>; 2],
}

impl Sheets {
    pub(super) fn new() -> anyhow::Result<Sheets> {
        let faces = [Face::parse(REGULAR, 0)?, Face::parse(BOLD, 0)?];
        Ok(Sheets { pages: vec![Vec::new()], y: TOP, faces })
    }

    /// Leaves room.
    pub(super) fn space(&mut self, height: f32) {
        self.y += height;
    }

    /// Begins a page, unless there is room for so much.
    pub(super) fn keep(&mut self, height: f32) {
        if self.y + height > BOTTOM {
            self.pages.push(Vec::new());
            self.y = TOP;
        }
    }

    /// Draws a line across.
    pub(super) fn rule(&mut self) {
        self.y += 3.0;
        self.mark(Mark::Rule(self.y));
        self.y += 3.0;
    }

    /// Puts cells beside each other; on a page that they begin, `again` stands above them.
    pub(super) fn row(&mut self, cells: &[Cell<'_>], again: &[Cell<'_>]) {
        let (height, _) = self.laid(cells, 0.0);
        let pages = self.pages.len();
        self.keep(height);
        if self.pages.len() > pages && !again.is_empty() {
            self.row(again, &[]);
            self.rule();
        }
        let (height, marks) = self.laid(cells, self.y);
        marks.into_iter().for_each(|mark| self.mark(mark));
        self.y += height;
    }

    /// How much room cells take beside each other, and what is drawn where they begin at this height.
    fn laid(&self, cells: &[Cell<'_>], top: f32) -> (f32, Vec<Mark>) {
        let mut bottom = top;
        let mut marks = Vec::new();
        for cell in cells {
            let mut baseline = top;
            for (style, text) in self.lines(cell) {
                baseline += style.leading();
                let left = match cell.column {
                    Column::From(left, _) => left,
                    Column::UpTo(right) => right - self.width(style, &text),
                };
                marks.push(Mark::Text { at: (left, baseline), style, text });
            }
            bottom = bottom.max(baseline);
        }
        (bottom - top, marks)
    }

    fn mark(&mut self, mark: Mark) {
        if let Some(page) = self.pages.last_mut() {
            page.push(mark);
        }
    }

    fn face(&self, style: Style) -> &Face<'static> {
        &self.faces[usize::from(style.is_bold())]
    }

    fn width(&self, style: Style, text: &str) -> f32 {
        text.chars().map(|c| self.advance(style, c)).sum()
    }

    fn advance(&self, style: Style, c: char) -> f32 {
        let face = self.face(style);
        let units = face.glyph_index(c).and_then(|glyph| face.glyph_hor_advance(glyph)).unwrap_or(0);
        f32::from(units) * style.size() / f32::from(face.units_per_em())
    }

    /// A cell's texts as they fit into its column.
    fn lines(&self, cell: &Cell<'_>) -> Vec<(Style, String)> {
        let mut lines = Vec::new();
        for (style, text) in &cell.texts {
            let has = |c: &char| !c.is_control() && self.face(*style).glyph_index(*c).is_some();
            let shown = text.chars().map(|c| if has(&c) { c } else { char::REPLACEMENT_CHARACTER }).collect::<String>();
            match cell.column {
                Column::From(left, right) => self.wrap(*style, &shown, right - left, &mut lines),
                Column::UpTo(_) => lines.push((*style, shown)),
            }
        }
        if lines.len() > MAX_CELL_LINES {
            lines.truncate(MAX_CELL_LINES - 1);
            lines.push((Style::Small, "…".to_owned()));
        }
        lines
    }

    /// Breaks at the last space that fits, or else where it must.
    fn wrap(&self, style: Style, text: &str, width: f32, lines: &mut Vec<(Style, String)>) {
        let mut rest = text.trim();
        while !rest.is_empty() && lines.len() <= MAX_CELL_LINES {
            let mut used = 0.0;
            let fits = |(_, c): &(usize, char)| {
                used += self.advance(style, *c);
                used <= width
            };
            let end = rest.char_indices().take_while(fits).map(|(at, c)| at + c.len_utf8()).last();
            let end = end.unwrap_or_else(|| rest.chars().next().map_or(0, char::len_utf8));
            let at_space = || rest[..end].rfind(' ').filter(|at| *at > 0).unwrap_or(end);
            let end = if end == rest.len() { end } else { at_space() };
            lines.push((style, rest[..end].trim_end().to_owned()));
            rest = rest[end..].trim_start();
        }
    }

    /// The document, with `title` at the foot of each page.
    pub(super) fn written(mut self, title: &str) -> anyhow::Result<Vec<u8>> {
        let fonts = [Font::new(REGULAR.into(), 0), Font::new(BOLD.into(), 0)];
        let [Some(regular), Some(bold)] = fonts else { anyhow::bail!("a font of the program cannot be read") };
        let count = self.pages.len();
        for number in 1..=count {
            let place = format!("Page {number} of {count}");
            let cell = |column, text| Cell { column, texts: vec![(Style::Small, text)] };
            let (_, foot) =
                self.laid(&[cell(Column::From(LEFT, RIGHT - 80.0), title), cell(Column::UpTo(RIGHT), &place)], FOOT);
            self.pages[number - 1].extend(foot);
        }
        let mut document = Document::new();
        document.set_metadata(Metadata::new().title(title.to_owned()).language("en".to_owned()));
        for marks in &self.pages {
            let settings = PageSettings::from_wh(PAGE.0, PAGE.1).context("the page has no size")?;
            let mut page = document.start_page_with(settings);
            let mut surface = page.surface();
            for mark in marks {
                draw(&mut surface, mark, &regular, &bold);
            }
            surface.finish();
            page.finish();
        }
        document.finish().map_err(|error| anyhow::anyhow!("the PDF cannot be written: {error:?}"))
    }
}

fn draw(surface: &mut Surface<'_>, mark: &Mark, regular: &Font, bold: &Font) {
    let fill = |color: rgb::Color| Some(Fill { paint: color.into(), ..Fill::default() });
    match mark {
        Mark::Text { at: (left, baseline), style, text } => {
            surface.set_fill(fill(style.color()));
            let font = if style.is_bold() { bold } else { regular };
            let at = Point::from_xy(*left, *baseline);
            surface.draw_text(at, font.clone(), style.size(), text, false, TextDirection::Auto);
        }
        Mark::Rule(y) => {
            surface.set_fill(fill(rgb::Color::new(200, 205, 211)));
            let mut path = PathBuilder::new();
            if let Some(line) = Rect::from_xywh(LEFT, *y, RIGHT - LEFT, 0.5) {
                path.push_rect(line);
            }
            if let Some(path) = path.finish() {
                surface.draw_path(&path);
            }
        }
    }
}
