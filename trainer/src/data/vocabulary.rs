//! A tokenizer of Qwen2's kind (byte-level BPE), trained on a dataset's text.

use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer};

use crate::error::{Error, Result};

/// How Qwen2 cuts text before byte pairs are merged: contractions, words with the character
/// before them, single digits, punctuation, line ends, other white space.
const WORDS: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r"|[^\r\n\p{L}\p{N}]?\p{L}+",
    r"|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+",
    r"|\s+(?!\S)",
    r"|\s+",
);

/// Trains on `texts`; `special` tokens get the ids behind the vocabulary, in their order. At most
/// `size` tokens without them; pairs seen once are not merged.
pub fn train<'a>(
    texts: impl Iterator<Item = &'a str> + Send,
    special: &[&str],
    size: usize,
) -> Result<Tokenizer> {
    let failed = |error: tokenizers::Error| Error::Bug(format!("training a tokenizer: {error}"));
    let mut tokenizer = Tokenizer::new(BPE::default());
    let split = Split::new(
        SplitPattern::Regex(WORDS.to_owned()),
        SplitDelimiterBehavior::Isolated,
        false,
    );
    let bytes = ByteLevel::new(false, false, false);
    tokenizer
        .with_normalizer(Some(NFC))
        .with_pre_tokenizer(Some(Sequence::new(vec![
            PreTokenizerWrapper::Split(split.map_err(failed)?),
            PreTokenizerWrapper::ByteLevel(bytes),
        ])))
        .with_post_processor(Some(bytes))
        .with_decoder(Some(ByteLevelDecoder::new(false, false, false)));
    let trainer = BpeTrainer::builder()
        .vocab_size(size)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    tokenizer
        .train(&mut TrainerWrapper::from(trainer), texts)
        .map_err(failed)?;
    let special = special.iter().map(|text| AddedToken::from(*text, true));
    tokenizer.add_special_tokens(&special.collect::<Vec<_>>());
    Ok(tokenizer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TEXTS: [&str; 4] = [
        "a handwritten digit three",
        "a handwritten digit three",
        "una cifra escrita a mano: tres",
        "手書きの数字、三。手書きの数字、三。",
    ];

    #[test]
    fn any_text_in_any_language_comes_back() {
        let tokenizer = train(TEXTS.into_iter(), &["<|im_end|>"], 1000).unwrap();
        for text in [
            "ein Bild\n\n  mit 12 Hühnern",
            "手書きの数字",
            "😀\tzwei\r\n",
            " a handwritten",
        ] {
            let ids = tokenizer.encode(text, false).unwrap();
            assert_eq!(tokenizer.decode(ids.get_ids(), false).unwrap(), text);
        }
        let words = tokenizer
            .encode("a handwritten digit three<|im_end|>", false)
            .unwrap();
        assert_eq!(
            words.get_tokens(),
            ["a", "Ġhandwritten", "Ġdigit", "Ġthree", "<|im_end|>"]
        );
        assert_eq!(
            words.get_ids()[4] as usize,
            tokenizer.get_vocab_size(true) - 1
        );
    }

    #[test]
    fn training_twice_gives_the_same_tokenizer() {
        let train = || train(TEXTS.into_iter(), &["<|im_end|>"], 1000).unwrap();
        assert_eq!(
            train().to_string(false).unwrap(),
            train().to_string(false).unwrap()
        );
    }
}
