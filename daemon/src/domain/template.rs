//! Templates of `[env]`: text with the worktree's other variables in it.
//!
//! A template knows nothing of other templates, so what it makes is as long as its text and the variables in it, and
//! there is no order in which they have to be worked out.

use std::collections::BTreeMap;

use wtd_protocol::variable::Variable;

/// The most bytes that the templates of a worktree make together, names included. The allocation file has to have
/// room for them.
pub const MAX_BYTES: usize = 16 * 1024;

/// Text with placeholders: `{NAME}` is the variable `NAME`, `{{` and `}}` are the braces themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Placeholder(String),
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A `{` without its `}`.
    #[error("a {{ is not closed; write {{{{ for the brace itself")]
    Unclosed,
    /// A `}` without its `{`.
    #[error("a }} is not opened; write }}}} for the brace itself")]
    Unopened,
    /// What stands in the braces is no variable that a worktree has.
    #[error("{0:?} is not a variable of a worktree that a template could use")]
    Unknown(String),
    /// It has a newline or another control character.
    #[error("a value has no newline and no other control character")]
    ControlCharacter,
}

/// Why a template makes no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The worktree doesn't have a variable that is in it.
    #[error("this worktree has no {0}, or none that text can hold")]
    Absent(String),
    /// A variable put a control character into it.
    #[error("its value would have a control character")]
    ControlCharacter,
    /// There is no room for it.
    #[error("the templates make more than {MAX_BYTES} bytes")]
    TooLong,
}

impl Template {
    /// The template that `text` is; `is_known` says which variables a worktree has.
    pub fn parse(text: &str, is_known: impl Fn(&str) -> bool) -> Result<Self, TemplateError> {
        if text.chars().any(char::is_control) {
            return Err(TemplateError::ControlCharacter);
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from_brace) = rest.split_at(at);
            push_text(&mut pieces, before);
            if let Some(after) = from_brace.strip_prefix("{{") {
                push_text(&mut pieces, "{");
                rest = after;
            } else if let Some(after) = from_brace.strip_prefix("}}") {
                push_text(&mut pieces, "}");
                rest = after;
            } else if let Some(after) = from_brace.strip_prefix('{') {
                let (name, after) = after.split_once('}').ok_or(TemplateError::Unclosed)?;
                if !is_known(name) {
                    return Err(TemplateError::Unknown(name.chars().take(64).collect()));
                }
                pieces.push(Piece::Placeholder(name.to_owned()));
                rest = after;
            } else {
                return Err(TemplateError::Unopened);
            }
        }
        push_text(&mut pieces, rest);
        Ok(Self { text: text.to_owned(), pieces })
    }

    /// The text that it was made from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value, with these variables in it and of at most `room` bytes.
    fn render(&self, variables: &BTreeMap<String, String>, room: usize) -> Result<String, RenderError> {
        let mut value = String::new();
        for piece in &self.pieces {
            let piece = match piece {
                Piece::Text(text) => text,
                Piece::Placeholder(name) => {
                    variables.get(name).ok_or_else(|| RenderError::Absent(name.clone()))?
                }
            };
            if value.len() + piece.len() > room {
                return Err(RenderError::TooLong);
            }
            value.push_str(piece);
        }
        if value.chars().any(char::is_control) { Err(RenderError::ControlCharacter) } else { Ok(value) }
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        Some(Piece::Text(last)) => last.push_str(text),
        _ if text.is_empty() => {}
        _ => pieces.push(Piece::Text(text.to_owned())),
    }
}

/// The values of templates, and those that make none with the reason.
pub fn render<'t>(
    templates: &'t BTreeMap<Variable, Template>,
    variables: &BTreeMap<String, String>,
) -> (BTreeMap<Variable, String>, Vec<(&'t Variable, RenderError)>) {
    let mut values = BTreeMap::new();
    let mut failures = Vec::new();
    let mut room = MAX_BYTES;
    for (name, template) in templates {
        match template.render(variables, room.saturating_sub(name.as_str().len())) {
            Ok(value) => {
                room = room.saturating_sub(name.as_str().len() + value.len());
                values.insert(name.clone(), value);
            }
            Err(error) => failures.push((name, error)),
        }
    }
    (values, failures)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variables() -> BTreeMap<String, String> {
        let variables = [("PORT", "15432"), ("DB", "shop-10000"), ("PATH_OF", "/w/a\nb"), ("BRACE", "{DB}")];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    fn parse(text: &str) -> Result<Template, TemplateError> {
        Template::parse(text, |name| variables().contains_key(name) || name == "ABSENT")
    }

    fn value(text: &str) -> Result<String, RenderError> {
        parse(text).unwrap().render(&variables(), 100)
    }

    #[test]
    fn placeholders_are_replaced_and_doubled_braces_are_braces() {
        for (text, expected) in [
            ("", ""),
            ("plain $(id) `id` 'x'", "plain $(id) `id` 'x'"),
            ("postgresql://u:p@localhost:{PORT}/{DB}", "postgresql://u:p@localhost:15432/shop-10000"),
            ("{{}}", "{}"),
            ("{{PORT}}", "{PORT}"),
            ("{{{PORT}}}", "{15432}"),
            ("{PORT}{PORT}", "1543215432"),
            // A value is not looked into again.
            ("{BRACE}", "{DB}"),
        ] {
            assert_eq!(value(text).unwrap(), expected, "{text}");
            assert_eq!(parse(text).unwrap().text(), text);
        }
    }

    #[test]
    fn what_is_no_template_is_told() {
        for (text, expected) in [
            ("{", TemplateError::Unclosed),
            ("a{PORT", TemplateError::Unclosed),
            ("{{{", TemplateError::Unclosed),
            ("}", TemplateError::Unopened),
            ("{PORT}}", TemplateError::Unopened),
            ("{}", TemplateError::Unknown(String::new())),
            ("{ PORT }", TemplateError::Unknown(" PORT ".into())),
            ("{{PORT}{HOME}", TemplateError::Unopened),
            ("{HOME}", TemplateError::Unknown("HOME".into())),
            ("{{{{{DB{PORT}}}", TemplateError::Unknown("DB{PORT".into())),
            ("a\nb", TemplateError::ControlCharacter),
            ("a\u{1b}", TemplateError::ControlCharacter),
        ] {
            assert_eq!(parse(text), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_made_is_told() {
        assert_eq!(value("{ABSENT}"), Err(RenderError::Absent("ABSENT".into())));
        assert_eq!(value("{PATH_OF}"), Err(RenderError::ControlCharacter));
        assert_eq!(value(&"{PORT}".repeat(21)), Err(RenderError::TooLong));
        assert!(value(&"{PORT}".repeat(20)).is_ok());
    }

    #[test]
    fn what_templates_make_together_is_bounded() {
        let long: BTreeMap<String, String> = [("LONG".to_owned(), "x".repeat(4096))].into();
        let template = Template::parse("{LONG}", |_| true).unwrap();
        let templates: BTreeMap<_, _> =
            (0..64).map(|number| (Variable::new(&format!("V{number}")).unwrap(), template.clone())).collect();
        let (values, failures) = render(&templates, &long);
        assert_eq!((values.len(), failures.len()), (3, 61));
        assert!(failures.iter().all(|(_, error)| *error == RenderError::TooLong));
    }

    proptest! {
        /// What is not a brace is text, whatever it is.
        #[test]
        fn text_comes_out_as_it_went_in(text in "[^\\p{Cc}]{0,40}") {
            let doubled = text.replace('{', "{{").replace('}', "}}");
            let template = Template::parse(&doubled, |_| false).unwrap();
            prop_assert_eq!(template.render(&BTreeMap::new(), 1000).unwrap(), text);
        }

        #[test]
        fn any_text_is_a_template_or_not(text in "\\PC*|[{}A-Z]{0,12}") {
            if let Ok(template) = Template::parse(&text, |name| name == "A") {
                let variables = [("A".to_owned(), "x".to_owned())].into();
                prop_assert!(template.render(&variables, 1000).is_ok());
            }
        }
    }
}
