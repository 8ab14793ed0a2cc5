//! The start tags of an XML text, in order.
//!
//! Two elements of a description matter, and both are told by their attributes alone, so that no tree is built: a
//! scan that forgets each tag has neither depth nor memory to exhaust, and needs no parser of others. Prefixes of
//! namespaces are dropped: no two namespaces of a description share the names that are asked for.

use std::borrow::Cow;

/// Bound on the attributes of one tag.
const MAX_ATTRIBUTES: usize = 64;

/// A start tag, or an empty element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag<'a> {
    /// Without prefix.
    pub(super) name: &'a str,
    /// Names without prefix.
    attributes: Vec<(&'a str, Cow<'a, str>)>,
}

impl Tag<'_> {
    /// The value of the attribute with this name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(found, _)| *found == name).map(|(_, value)| &**value)
    }
}

/// Reads `text` tag by tag; ends at the first thing that is no XML.
#[derive(Debug)]
pub(super) struct Tags<'a> {
    rest: &'a str,
    /// What ended the scan, if it was not the end of the text.
    pub(super) broken: Option<&'static str>,
}

impl<'a> Tags<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text, broken: None }
    }

    /// Skips past `end`.
    fn skip(&mut self, end: &str, what: &'static str) -> Option<()> {
        match self.rest.split_once(end) {
            Some((_, after)) => {
                self.rest = after;
                Some(())
            }
            None => self.fail(what),
        }
    }

    fn fail<T>(&mut self, what: &'static str) -> Option<T> {
        self.broken = Some(what);
        self.rest = "";
        None
    }

    /// The rest of a start tag, after its `<`.
    fn tag(&mut self) -> Option<Tag<'a>> {
        let end = self.rest.find(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>')).unwrap_or(0);
        let (name, mut rest) = self.rest.split_at_checked(end).filter(|(name, _)| !name.is_empty())?;
        let mut attributes = Vec::new();
        loop {
            rest = rest.trim_ascii_start();
            if let Some(after) = rest.strip_prefix("/>").or_else(|| rest.strip_prefix('>')) {
                self.rest = after;
                return Some(Tag { name: local(name), attributes });
            }
            let (key, value) = rest.split_once('=')?;
            let key = key.trim_ascii();
            let value = value.trim_ascii_start();
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            let (value, after) = value.get(1..)?.split_once(quote)?;
            if key.is_empty() || key.contains(['<', '>', '"']) || attributes.len() >= MAX_ATTRIBUTES {
                return None;
            }
            attributes.push((local(key), unescaped(value)));
            rest = after;
        }
    }
}

impl<'a> Iterator for Tags<'a> {
    type Item = Tag<'a>;

    fn next(&mut self) -> Option<Tag<'a>> {
        loop {
            let (_, rest) = self.rest.split_once('<')?;
            self.rest = rest;
            if rest.starts_with("!--") {
                self.skip("-->", "a comment without end")?;
            } else if rest.starts_with("![CDATA[") {
                self.skip("]]>", "a section without end")?;
            } else if rest.starts_with('!') {
                // Could define entities.
                return self.fail("a document type");
            } else if rest.starts_with('?') {
                self.skip("?>", "an instruction without end")?;
            } else if rest.starts_with('/') {
                self.skip(">", "a tag without end")?;
            } else {
                return match self.tag() {
                    Some(tag) => Some(tag),
                    None => self.fail("a tag that is not understood"),
                };
            }
        }
    }
}

fn local(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, local)| local)
}

/// A value with its references replaced; one that is not known stays as it is.
fn unescaped(value: &str) -> Cow<'_, str> {
    if !value.contains('&') {
        return Cow::Borrowed(value);
    }
    let mut found = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('&') {
        found.push_str(before);
        match after.split_once(';').and_then(|(name, after)| Some((reference(name)?, after))) {
            Some((c, after)) => {
                found.push(c);
                rest = after;
            }
            None => {
                found.push('&');
                rest = after;
            }
        }
    }
    found.push_str(rest);
    Cow::Owned(found)
}

fn reference(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let code = match name.strip_prefix("#x") {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => name.strip_prefix('#')?.parse().ok()?,
            };
            char::from_u32(code).filter(|c| *c != '\0')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_in_order() {
        let text = "<?xml version='1.0'?><!-- <File/> --><Envelope xmlns:ovf=\"x\"><ovf:File ovf:id = 'a&amp;&#x41;&#66;&no;'\n\
            ovf:href=\"b > c\"/><![CDATA[<File>]]>text</Envelope>";
        let mut tags = Tags::new(text);
        let found: Vec<_> = tags.by_ref().collect();
        assert_eq!(found.iter().map(|tag| tag.name).collect::<Vec<_>>(), ["Envelope", "File"]);
        assert_eq!(found[1].get("id"), Some("a&AB&no;"));
        assert_eq!((found[1].get("href"), found[1].get("size")), (Some("b > c"), None));
        assert_eq!(tags.broken, None);
    }

    #[test]
    fn what_is_no_xml_ends_the_scan() {
        for text in [
            "<a><!-- x",
            "<a><![CDATA[ x",
            "<a><? x",
            "<a></a",
            "<a><b",
            "<a><b c",
            "<a><b c=d>",
            "<a><b c='d>",
            "<a>< b>",
            "<a><é",
        ] {
            let mut tags = Tags::new(text);
            assert_eq!(tags.by_ref().count(), 1, "{text}");
            assert!(tags.broken.is_some(), "{text}");
        }
        let mut tags = Tags::new("<!DOCTYPE x [<!ENTITY y 'z'>]><a/>");
        assert_eq!((tags.by_ref().count(), tags.broken), (0, Some("a document type")));
        let many = format!("<a {}/>", "b='c' ".repeat(100_000));
        assert_eq!(Tags::new(&many).count(), 0);
    }
}
