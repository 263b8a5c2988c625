//! The short text fields of a multipart form; files are stepped over.
use memchr::memmem;

/// Calls `each` with name and value of the fields that are no files and shorter than 1 KiB, at most 64 of them.
pub(super) fn fields(content_type: &str, body: &[u8], mut each: impl FnMut(&str, &str)) {
    let Some(boundary) = boundary(content_type) else {
        return;
    };
    let mark = format!("--{boundary}");
    let finder = memmem::Finder::new(mark.as_bytes());
    let mut rest = body;
    for _ in 0..64 {
        let Some(start) = finder.find(rest) else {
            return;
        };
        rest = &rest[start + mark.len()..];
        let Some(head_len) = memmem::find(rest.get(..4096).unwrap_or(rest), b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&rest[..head_len]);
        let content = &rest[head_len + 4..];
        if head.to_ascii_lowercase().contains("filename") {
            rest = content;
            continue;
        }
        let window = content.get(..1024 + mark.len()).unwrap_or(content);
        let (Some(name), Some(end)) = (name(&head), finder.find(window)) else {
            continue;
        };
        if let Ok(value) = std::str::from_utf8(&content[..end]) {
            each(name, value.trim_end_matches(['\r', '\n']));
        }
    }
}

fn boundary(content_type: &str) -> Option<&str> {
    let (_, rest) = content_type.split_once("boundary=")?;
    let value = rest.split(';').next()?.trim().trim_matches('"');
    (!value.is_empty() && value.len() <= 200).then_some(value)
}

fn name(head: &str) -> Option<&str> {
    let (_, rest) = head.split_once("name=")?;
    match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => rest.split([';', '\r', ' ']).next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_and_steps_over_files() {
        let body = b"--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n\r\nname=\"model\"\
            \r\n--xyz\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--xyz\r\n\
            content-disposition: form-data; name=stream\r\n\r\ntrue\r\n--xyz--\r\n";
        let mut seen = Vec::new();
        fields("multipart/form-data; boundary=xyz", body, |name, value| {
            seen.push((name.to_owned(), value.to_owned()));
        });
        assert_eq!(
            seen,
            [
                ("model".to_owned(), "whisper-1".to_owned()),
                ("stream".to_owned(), "true".to_owned())
            ]
        );
    }
}
