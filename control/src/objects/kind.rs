//! What an object is, by its ending, where nobody said.

/// Longest content type that is kept, bytes.
const KIND_BYTES_MAX: usize = 127;

/// The content type that was said, if it is one.
pub(super) fn said(value: &str) -> Option<&str> {
    let value = value.trim();
    let is_kind = |text: &str| {
        let (major, minor) = text.split_once('/')?;
        let is_token = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
        };
        (is_token(major) && is_token(minor)).then_some(())
    };
    let essence = value.split(';').next().unwrap_or("").trim();
    let is_plain = value.len() <= KIND_BYTES_MAX && value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    (is_plain && is_kind(essence).is_some()).then_some(value)
}

/// The content type by a key's ending.
pub(super) fn by_ending(key: &str) -> &'static str {
    let name = key.rsplit('/').next().unwrap_or(key);
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
    match ending.as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "mov" => "video/quicktime",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "ogg" => "audio/ogg",
        "json" => "application/json",
        "txt" => "text/plain; charset=utf-8",
        "zip" => "application/zip",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_name_kinds() {
        for (key, kind) in [
            ("outputs/job-0-1/dance.WEBP", "image/webp"),
            ("inputs/1/a.png/b", "application/octet-stream"),
            ("inputs/1/a.html", "application/octet-stream"),
            ("inputs/1/a.", "application/octet-stream"),
        ] {
            assert_eq!(by_ending(key), kind, "{key}");
        }
    }

    #[test]
    fn only_content_types_are_kept() {
        for (value, is_kept) in [
            ("image/png", true),
            (" text/plain; charset=utf-8 ", true),
            ("application/vnd.x+json", true),
            ("", false),
            ("image", false),
            ("/png", false),
            ("image/", false),
            ("image/png\u{7f}", false),
            ("im age/png", false),
        ] {
            assert_eq!(said(value).is_some(), is_kept, "{value}");
        }
    }
}
