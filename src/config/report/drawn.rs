//! An error as the compilers of our day show theirs.

use crate::config::document::{Text, lines_of};
use crate::config::error::{Appearance, Fault};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Draws one error.
pub(in crate::config) fn draw(fault: &Fault, texts: &[Text], appearance: Appearance) -> String {
    let renderer = match appearance {
        Appearance::Plain => Renderer::plain(),
        Appearance::Coloured => Renderer::styled(),
    };
    renderer.term_width(80).render(&[group(fault, texts)])
}

/// Builds what the renderer shows.
fn group<'a>(fault: &'a Fault, texts: &'a [Text]) -> Group<'a> {
    let mut group = Group::with_title(Level::ERROR.primary_title(fault.message.as_str()));
    let shown = fault.place.as_ref().and_then(|place| Some((place, texts.get(place.text)?)));
    if let Some((place, text)) = shown {
        let start = place.span.start.min(text.text.len());
        let end = place.span.end.clamp(start, text.text.len());
        // The renderer reads all that it is given, for each error anew: it gets the lines in question.
        let lines = lines_of(&text.text, &(start..end));
        let above = text.text.get(..lines.start).unwrap_or_default().matches('\n').count();
        let mut annotation = AnnotationKind::Primary.span(start - lines.start..end - lines.start);
        if let Some(label) = &fault.label {
            annotation = annotation.label(label.as_str());
        }
        let excerpt = Snippet::source(text.text.get(lines).unwrap_or_default()).line_start(above + 1);
        group = group.element(excerpt.path(text.name.as_str()).annotation(annotation));
    } else if let Some(label) = &fault.label {
        group = group.element(Level::NOTE.message(label.as_str()));
    }
    if let Some(help) = &fault.help {
        group = group.element(Level::HELP.message(super::folded(help)));
    }
    group
}
