//! Chat templates: Jinja programs that come with a checkpoint and are not trusted.

use std::io::{self, Write};
use std::path::Path;

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind, context};
use serde::Serialize;
use serde_json::json;

use super::record::{Message, Part};
use crate::error::{Error, Result};

/// Instructions a template may spend on one conversation.
const FUEL: u64 = 2_000_000;
/// Most text a template may write for one conversation, bytes.
const MAX_OUTPUT: usize = 32 << 20;
const NAME: &str = "chat_template";

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    style: ContentStyle,
    tokens: SpecialTokens,
}

/// Special tokens that templates refer to by name, from tokenizer_config.json.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub pad: Option<String>,
    pub unk: Option<String>,
}

/// How the template wants a message's content.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ContentStyle {
    /// A list of `{"type": "text" | "image", ...}`.
    Parts,
    /// One string; an image is this placeholder in it.
    Text { image: String },
}

impl ChatTemplate {
    /// Compiles a template and finds out how it wants content. `image` is the placeholder that
    /// text-only templates get for an image.
    pub fn new(source: &str, tokens: SpecialTokens, image: &str) -> Result<Self> {
        let mut environment = sandbox();
        environment
            .add_template_owned(NAME, without_generation_marks(source))
            .map_err(|error| at_fault(&error))?;
        let mut template = Self {
            environment,
            style: ContentStyle::Parts,
            tokens,
        };
        if !template.takes_parts() {
            let image = image.to_owned();
            template.style = ContentStyle::Text { image };
        }
        Ok(template)
    }

    /// The prompt text of a conversation; `answer_next` ends it where the assistant begins.
    pub fn render(&self, messages: &[Message], answer_next: bool) -> Result<String> {
        self.try_render(messages, answer_next)
            .map_err(|error| at_fault(&error))
    }

    fn try_render(
        &self,
        messages: &[Message],
        answer_next: bool,
    ) -> Result<String, minijinja::Error> {
        let messages: Vec<_> = messages
            .iter()
            .map(|message| self.message(message))
            .collect();
        let none = Value::from(());
        let context = context! {
            messages, tools => none, documents => none, add_generation_prompt => answer_next,
            bos_token => self.tokens.bos, eos_token => self.tokens.eos,
            pad_token => self.tokens.pad, unk_token => self.tokens.unk,
        };
        let mut output = Bounded(Vec::new());
        self.environment
            .get_template(NAME)?
            .render_captured_to(context, &mut output)?;
        String::from_utf8(output.0)
            .map_err(|_| minijinja::Error::new(ErrorKind::WriteFailure, "output is not UTF-8"))
    }

    fn message(&self, message: &Message) -> serde_json::Value {
        let role = message.role.as_str();
        match &self.style {
            ContentStyle::Parts => {
                let parts = message.parts.iter().map(|part| match part {
                    Part::Text(text) => json!({"type": "text", "text": text}),
                    Part::Image => json!({"type": "image"}),
                });
                json!({"role": role, "content": parts.collect::<Vec<_>>()})
            }
            ContentStyle::Text { image } => {
                let texts = message.parts.iter().map(|part| match part {
                    Part::Text(text) => text.as_str(),
                    Part::Image => image.as_str(),
                });
                json!({"role": role, "content": texts.collect::<String>()})
            }
        }
    }

    /// A template made for plain text prints the list itself, or fails on it.
    fn takes_parts(&self) -> bool {
        let probe = "vlft probe";
        let message = Message::text(super::record::Role::User, probe);
        match self.try_render(&[message], false) {
            Ok(text) => text.contains(probe) && !text.contains("\"type\""),
            Err(_) => false,
        }
    }
}

/// transformers' Jinja environment: trimmed blocks, Python's string methods, loop controls,
/// `raise_exception`, a `tojson` that escapes nothing. `strftime_now` is left out on purpose:
/// templates do without it, and a prompt must not depend on the day.
fn sandbox() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", to_json);
    environment
}

fn raise_exception(message: String) -> Result<String, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// Python's `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn to_json(value: Value, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let failed = |error: &dyn std::fmt::Display| {
        minijinja::Error::new(ErrorKind::BadSerialization, error.to_string())
    };
    let mut bytes = Vec::new();
    let written = match indent {
        Some(width) => {
            let spaces = " ".repeat(width.min(16));
            let style = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(
                &mut bytes, style,
            ))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(
            &mut bytes, OneLine,
        )),
    };
    written.map_err(|error| failed(&error))?;
    String::from_utf8(bytes).map_err(|error| failed(&error))
}

/// JSON on one line with a space after each comma and colon, as Python writes it.
struct OneLine;

impl serde_json::ser::Formatter for OneLine {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// A writer that refuses more than [`MAX_OUTPUT`].
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other("the chat template writes too much"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `{% generation %}` only marks the assistant's words for transformers' own masks.
fn without_generation_marks(source: &str) -> String {
    let mut rest = source;
    let mut plain = String::with_capacity(source.len());
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else {
            break;
        };
        let (tag, after) = (
            &rest[start..start + length + 2],
            &rest[start + length + 2..],
        );
        plain.push_str(&rest[..start]);
        match tag.trim_matches(['{', '}', '%', '-', '+', ' ', '\n', '\t']) {
            "generation" => plain.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => plain.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => plain.push_str(tag),
        }
        rest = after;
    }
    plain.push_str(rest);
    plain
}

fn at_fault(error: &minijinja::Error) -> Error {
    let place = error
        .line()
        .map_or(String::new(), |line| format!(" line {line}"));
    match error.kind() {
        ErrorKind::OutOfFuel => Error::User(format!(
            "chat template{place}: it does not end within {FUEL} instructions; use the model's own \
             chat_template.jinja"
        )),
        _ => Error::User(format!("chat template{place}: {error}")),
    }
}

/// The checkpoint's template: chat_template.jinja, chat_template.json, tokenizer_config.json, in
/// transformers' order of precedence.
pub fn find_source(folder: &Path, tokenizer_config: &serde_json::Value) -> Result<Option<String>> {
    let jinja = folder.join("chat_template.jinja");
    if jinja.is_file() {
        let read = std::fs::read_to_string(&jinja);
        return read
            .map(Some)
            .map_err(|error| Error::Storage(format!("{}: {error}", jinja.display())));
    }
    let legacy = folder.join("chat_template.json");
    if legacy.is_file() {
        let value = super::chat::read_json(&legacy)?;
        return named_template(&value, &legacy).map(Some);
    }
    if tokenizer_config
        .get("chat_template")
        .is_none_or(serde_json::Value::is_null)
    {
        return Ok(None);
    }
    named_template(tokenizer_config, &folder.join("tokenizer_config.json")).map(Some)
}

/// `chat_template` is one template, or a list of named ones of which `default` is meant.
fn named_template(value: &serde_json::Value, file: &Path) -> Result<String> {
    let template = value.get("chat_template");
    let default = template
        .and_then(|template| template.as_array())
        .and_then(|list| {
            let named = list.iter().find(|entry| entry["name"] == "default");
            named.map(|entry| &entry["template"])
        });
    let text = default.or(template).and_then(|template| template.as_str());
    text.map(str::to_owned).ok_or_else(|| {
        Error::User(format!(
            "{}: `chat_template` must be text, or a list with an entry named `default`",
            file.display()
        ))
    })
}
