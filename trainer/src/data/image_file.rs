//! Image bytes to RGB, as `PIL.Image.open(...)`, `exif_transpose` and `convert("RGB")` give it.

use std::io::Cursor;
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};

/// Images with more pixels than this are refused before anything is decoded (PIL warns there).
pub const MAX_PIXELS: u64 = 89_478_485;
/// Files larger than this are refused before they are read, bytes.
const MAX_FILE_BYTES: u64 = 512 << 20;
/// The widest pixel a decoder makes: four channels of 32-bit floats, bytes.
const MAX_PIXEL_BYTES: u64 = 16;

/// What a look at an image's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageHeader {
    /// Size as shown, that is after EXIF rotation, pixels.
    pub width: u32,
    pub height: u32,
    /// Whether EXIF asks to rotate or mirror it.
    pub reoriented: bool,
}

/// Why an image cannot be used. As text it goes after the image's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageFault {
    Broken(String),
    /// More pixels than [`MAX_PIXELS`].
    TooLarge(String),
}

impl std::fmt::Display for ImageFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Broken(text) | Self::TooLarge(text)) = self;
        f.write_str(text)
    }
}

/// Reads a whole file. The message of an error says what is wrong; the caller adds the place.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let named = |error: std::io::Error| format!("image {}: {error}", path.display());
    let metadata = std::fs::metadata(path).map_err(named)?;
    if !metadata.is_file() {
        // Reading a pipe would wait for ever.
        return Err(format!(
            "image {} is no file; name one, or remove the line",
            path.display()
        ));
    }
    let length = metadata.len();
    if length > MAX_FILE_BYTES {
        return Err(format!(
            "image {} has {length} bytes, more than the limit of {MAX_FILE_BYTES}; resize it",
            path.display()
        ));
    }
    std::fs::read(path).map_err(named)
}

/// The header of an image whose bytes these are.
pub fn header(bytes: &[u8]) -> Result<ImageHeader, ImageFault> {
    let (decoder, orientation) = open(bytes)?;
    let (width, height) = decoder.dimensions();
    let turned = matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    Ok(ImageHeader {
        width: if turned { height } else { width },
        height: if turned { width } else { height },
        reoriented: orientation != Orientation::NoTransforms,
    })
}

/// Decodes: size checked first, then rotated as EXIF says, then to 8-bit RGB.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, ImageFault> {
    let (mut decoder, orientation) = open(bytes)?;
    decoder
        .set_limits(limits())
        .map_err(|error| broken(&error))?;
    if bytes.starts_with(&[0xff, 0xd8]) && !jpeg_is_complete(bytes) {
        let early =
            "is broken: the JPEG data ends too early; copy the file again or remove the line";
        return Err(ImageFault::Broken(early.into()));
    }
    let mut decoded = DynamicImage::from_decoder(decoder).map_err(|error| broken(&error))?;
    decoded.apply_orientation(orientation);
    Ok(to_rgb(decoded))
}

/// The decoder with its header read, after the check of the image's size.
fn open(bytes: &[u8]) -> Result<(impl ImageDecoder + '_, Orientation), ImageFault> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| ImageFault::Broken(format!("is unreadable: {error}")))?;
    reader.limits(limits());
    if reader.format().is_none() {
        let unknown =
            "is no JPEG, PNG, WebP, BMP, GIF or TIFF image; convert it or remove the line";
        return Err(ImageFault::Broken(unknown.into()));
    }
    let mut decoder = reader.into_decoder().map_err(|error| broken(&error))?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MAX_PIXELS {
        return Err(ImageFault::TooLarge(format!(
            "is {width}x{height}, {pixels} pixels, more than the limit of {MAX_PIXELS}; resize it \
             or remove the line"
        )));
    }
    if pixels == 0 {
        let empty = "has no pixels; remove the line";
        return Err(ImageFault::Broken(empty.into()));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    Ok((decoder, orientation))
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * MAX_PIXEL_BYTES);
    limits
}

fn broken(error: &image::ImageError) -> ImageFault {
    ImageFault::Broken(format!(
        "is broken: {error}; copy the file again or remove the line"
    ))
}

/// 8-bit RGB as PIL converts: alpha is dropped, of 16-bit colours the high byte is kept, 16-bit
/// grey saturates at 255.
fn to_rgb(decoded: DynamicImage) -> RgbImage {
    let (width, height) = (decoded.width(), decoded.height());
    let levels: Vec<u8> = match decoded {
        DynamicImage::ImageRgb8(rgb) => return rgb,
        DynamicImage::ImageLuma8(grey) => triple(grey.iter().copied()),
        DynamicImage::ImageLumaA8(grey) => triple(grey.pixels().map(|pixel| pixel.0[0])),
        DynamicImage::ImageLuma16(grey) => triple(grey.iter().map(|&level| level.min(255) as u8)),
        DynamicImage::ImageLumaA16(grey) => triple(grey.pixels().map(|pixel| high(pixel.0[0]))),
        DynamicImage::ImageRgba8(rgba) => rgba
            .pixels()
            .flat_map(|pixel| [pixel.0[0], pixel.0[1], pixel.0[2]])
            .collect(),
        DynamicImage::ImageRgb16(rgb) => rgb.iter().map(|&level| high(level)).collect(),
        DynamicImage::ImageRgba16(rgba) => rgba
            .pixels()
            .flat_map(|pixel| [0, 1, 2].map(|c| high(pixel.0[c])))
            .collect(),
        other => return other.to_rgb8(),
    };
    // Each arm yields three levels a pixel; an empty picture would show if one did not.
    RgbImage::from_raw(width, height, levels).unwrap_or_default()
}

fn triple(levels: impl Iterator<Item = u8>) -> Vec<u8> {
    levels.flat_map(|level| [level; 3]).collect()
}

fn high(level: u16) -> u8 {
    (level >> 8) as u8
}

/// Whether a JPEG stream runs to its end-of-image marker. The decoder fills what is missing with
/// grey and says nothing.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker]) = bytes.get(at..at + 2) {
        match marker {
            0xff => at += 1,
            0xd9 => return true,
            0x01 | 0xd0..=0xd8 => at += 2,
            _ => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else {
                    return false;
                };
                at += 2 + usize::from(u16::from_be_bytes([high, low]));
                if marker == 0xda {
                    at = after_scan(bytes, at);
                }
            }
        }
    }
    false
}

/// Where the next marker begins after entropy-coded data; restarts and stuffed bytes belong to it.
fn after_scan(bytes: &[u8], from: usize) -> usize {
    let scan = bytes.get(from..).unwrap_or_default();
    let is_marker = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xd0..=0xd7);
    let length = scan.windows(2).position(is_marker);
    from + length.unwrap_or(scan.len())
}
