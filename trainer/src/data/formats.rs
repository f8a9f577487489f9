//! The formats a line of a dataset may have, all read into one [`Record`].

use serde::Deserialize;
use serde_json::Value;
use vlft_crds::dataset::DatasetFormat;

use super::record::{Message, Part, Record, Role};

/// Stands for one image in the text of a message (LLaVA, ShareGPT and LLaMA-Factory style).
const IMAGE_MARK: &str = "<image>";

const NO_OBJECT: &str = "a record is a JSON object, such as {\"image\": PATH, \"text\": TEXT}";

/// What a dataset says beside its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wording {
    /// The user's words beside each image of an image-text record.
    pub prompt: String,
    /// Put before every conversation that has no system message of its own.
    pub system: Option<String>,
}

/// Reads one line. The message of an error says what is wrong with it and what would be right;
/// the caller adds file and line.
pub fn parse_record(
    line: &str,
    format: DatasetFormat,
    wording: &Wording,
) -> Result<Record, String> {
    let mut record = match format {
        DatasetFormat::ImageText => parse_line::<ImageText>(line)?.record(wording),
        DatasetFormat::Messages => parse_line::<Messages>(line)?.record()?,
        DatasetFormat::Conversations => parse_line::<Conversations>(line)?.record()?,
        DatasetFormat::QuestionAnswer => parse_line::<QuestionAnswer>(line)?.record(),
        DatasetFormat::Parquet | DatasetFormat::WebDataset => {
            return Err("a jsonl file holds neither Parquet nor WebDataset records".into());
        }
    };
    let first = record.messages.first().map(|message| message.role);
    if let (Some(system), true) = (&wording.system, first != Some(Role::System)) {
        record
            .messages
            .insert(0, Message::text(Role::System, system.as_str()));
    }
    record.check()?;
    Ok(record)
}

/// The format whose keys a record has, or what was expected.
pub fn detect_format(line: &str) -> Result<DatasetFormat, String> {
    let value: Value = parse_line(line)?;
    let Some(fields) = value.as_object() else {
        return Err(NO_OBJECT.into());
    };
    let has = |key: &str| fields.contains_key(key);
    match () {
        () if has("messages") => Ok(DatasetFormat::Messages),
        () if has("conversations") => Ok(DatasetFormat::Conversations),
        () if has("question") || has("answer") => Ok(DatasetFormat::QuestionAnswer),
        () if has("text") || has("image") || has("file_name") => Ok(DatasetFormat::ImageText),
        () => Err(format!(
            "cannot tell the format from the keys {}; expected `image` and `text`, `images` and \
             `messages`, `image` and `conversations`, or `image`, `question` and `answer`",
            quoted(fields.keys())
        )),
    }
}

/// Reads a line's JSON; serde's own position within the line is kept, its line number is not.
fn parse_line<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T, String> {
    let begins_with = |mark: char| line.trim_ascii_start().starts_with(mark);
    // serde would take a list for the fields of a record, in the order they are declared in.
    if begins_with('[') {
        return Err(NO_OBJECT.into());
    }
    serde_json::from_str(line).map_err(|error| {
        let text = error.to_string();
        let reason = text.split(" at line ").next().unwrap_or(&text);
        match error.classify() {
            serde_json::error::Category::Data if !begins_with('{') => NO_OBJECT.into(),
            serde_json::error::Category::Data => reason.to_owned(),
            _ => format!(
                "not JSON (column {}): {reason}; write one JSON object per line",
                error.column()
            ),
        }
    })
}

fn quoted<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// One path or several.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "an image is a path or a list of paths")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(path) => vec![path],
            Self::Many(paths) => paths,
        }
    }
}

/// `{"image": PATH, "text": ANSWER}`; `prompt` outranks the dataset's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageText {
    #[serde(default, alias = "file_name")]
    image: Option<String>,
    text: String,
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default, rename = "id")]
    _id: Option<Value>,
}

impl ImageText {
    fn record(self, wording: &Wording) -> Record {
        let images: Vec<String> = self.image.into_iter().collect();
        let prompt = self.prompt.unwrap_or_else(|| wording.prompt.clone());
        question_and_answer(images, prompt, self.text)
    }
}

/// `{"image": PATH, "question": TEXT, "answer": TEXT}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuestionAnswer {
    #[serde(default, alias = "images", alias = "file_name")]
    image: Option<OneOrMany>,
    question: String,
    answer: String,
    #[serde(default, rename = "id")]
    _id: Option<Value>,
}

impl QuestionAnswer {
    fn record(self) -> Record {
        let images = self.image.map(OneOrMany::into_vec).unwrap_or_default();
        question_and_answer(images, self.question, self.answer)
    }
}

/// The images first, as in the published examples of each family.
fn question_and_answer(images: Vec<String>, question: String, answer: String) -> Record {
    let mut parts = vec![Part::Image; images.len()];
    parts.push(Part::Text(question));
    let user = Message {
        role: Role::User,
        parts,
    };
    Record {
        messages: vec![user, Message::text(Role::Assistant, answer)],
        images,
    }
}

/// `{"image": PATH, "conversations": [{"from", "value"}]}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Conversations {
    #[serde(default, alias = "images")]
    image: Option<OneOrMany>,
    conversations: Vec<Turn>,
    #[serde(default, rename = "id")]
    _id: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    from: Role,
    value: String,
}

impl Conversations {
    fn record(self) -> Result<Record, String> {
        let images = self.image.map(OneOrMany::into_vec).unwrap_or_default();
        let turns = self.conversations.into_iter();
        let messages = turns.map(|turn| Message {
            role: turn.from,
            parts: marked_parts(turn.value),
        });
        with_images(messages.collect(), images)
    }
}

/// `{"images": [PATH], "messages": [{"role", "content"}]}`, content as text or as parts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Messages {
    messages: Vec<RoleContent>,
    #[serde(default, alias = "image")]
    images: Option<OneOrMany>,
    #[serde(default, rename = "id")]
    _id: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleContent {
    role: Role,
    content: Content,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "`content` is text or a list of {\"type\": \"text\", \"text\": TEXT} and {\"type\": \"image\"} parts"
)]
enum Content {
    Text(String),
    Parts(Vec<ContentPart>),
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum ContentPart {
    Text {
        text: String,
    },
    Image {
        #[serde(default, alias = "path", alias = "url")]
        image: Option<String>,
    },
    ImageUrl {
        image_url: ImageUrl,
    },
}

#[derive(Debug, Deserialize)]
struct ImageUrl {
    url: String,
}

impl Messages {
    /// Images come either from `images`, in order, or from the parts themselves.
    fn record(self) -> Result<Record, String> {
        let mut listed = self.images.map(OneOrMany::into_vec).unwrap_or_default();
        let mut named = Vec::new();
        let messages = self.messages.into_iter().map(|message| {
            let parts = match message.content {
                Content::Text(text) => marked_parts(text),
                Content::Parts(parts) => content_parts(parts, &mut named),
            };
            Message {
                role: message.role,
                parts,
            }
        });
        let messages: Vec<Message> = messages.collect();
        if !named.is_empty() && !listed.is_empty() {
            return Err("images are named both in `images` and in the messages; keep one".into());
        }
        listed.append(&mut named);
        with_images(messages, listed)
    }
}

fn content_parts(parts: Vec<ContentPart>, named: &mut Vec<String>) -> Vec<Part> {
    let mut read = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            ContentPart::Text { text } => read.push(Part::Text(text)),
            ContentPart::Image { image } => {
                named.extend(image);
                read.push(Part::Image);
            }
            ContentPart::ImageUrl { image_url } => {
                named.push(image_url.url);
                read.push(Part::Image);
            }
        }
    }
    read
}

/// Splits text at its `<image>` marks.
fn marked_parts(text: String) -> Vec<Part> {
    if !text.contains(IMAGE_MARK) {
        return vec![Part::Text(text)];
    }
    let mut parts = Vec::new();
    for (index, piece) in text.split(IMAGE_MARK).enumerate() {
        if index > 0 {
            parts.push(Part::Image);
        }
        if !piece.is_empty() {
            parts.push(Part::Text(piece.to_owned()));
        }
    }
    parts
}

/// Checks that each image has its place. Without any `<image>` mark the images come before the
/// first user message's text, as single-image datasets mean it.
fn with_images(mut messages: Vec<Message>, images: Vec<String>) -> Result<Record, String> {
    let is_image = |part: &&Part| **part == Part::Image;
    let places = messages
        .iter()
        .flat_map(|message| &message.parts)
        .filter(is_image)
        .count();
    if places == 0 && !images.is_empty() {
        let Some(user) = messages
            .iter_mut()
            .find(|message| message.role == Role::User)
        else {
            return Err("there are images but no user message to show them".into());
        };
        user.parts.splice(0..0, vec![Part::Image; images.len()]);
    } else if places != images.len() {
        return Err(format!(
            "{places} `{IMAGE_MARK}` places but {} images; make them equal",
            images.len()
        ));
    }
    Ok(Record { messages, images })
}
