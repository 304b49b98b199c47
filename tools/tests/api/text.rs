//! Tokens as a person writes them, on one line.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::ToTokens;

/// The tokens of a piece of syntax, with the spaces that rustfmt would give them and without comments.
pub(crate) fn text(tokens: impl ToTokens) -> String {
    let mut words = Vec::new();
    flatten(tokens.to_token_stream(), &mut words);
    let mut text = String::new();
    let mut before = "";
    for word in &words {
        if !text.is_empty() && !are_joined(before, word) {
            text.push(' ');
        }
        text.push_str(word);
        before = word;
    }
    text.replace(",)", ")")
}

fn flatten(tokens: TokenStream, words: &mut Vec<String>) {
    let mut joint = false;
    for token in tokens {
        if let TokenTree::Group(group) = &token
            && group.stream().to_string().starts_with("doc =")
        {
            // The `#` of the attribute.
            words.pop();
            continue;
        }
        let (word, joins) = match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::None => ("", ""),
                };
                words.push(open.to_owned());
                flatten(group.stream(), words);
                words.push(close.to_owned());
                joint = false;
                continue;
            }
            TokenTree::Punct(punct) => {
                let joins = punct.spacing() == Spacing::Joint;
                (punct.as_char().to_string(), joins)
            }
            TokenTree::Ident(word) => (word.to_string(), false),
            TokenTree::Literal(literal) => (literal.to_string(), false),
        };
        match words.last_mut() {
            Some(last) if joint => last.push_str(&word),
            _ => words.push(word),
        }
        joint = joins;
    }
}

/// Whether there is no space between two tokens.
fn are_joined(before: &str, next: &str) -> bool {
    let is_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
        && !before.starts_with('\'')
        && !["mut", "dyn", "where", "const", "as", "in"].contains(&before);
    match (before, next) {
        (_, ")" | "]" | ">" | "," | ";" | ":" | "." | "?" | "") => true,
        ("(" | "[" | "<" | "&" | "#" | "!" | "::" | "." | "*" | "", _) => true,
        (_, "::") | ("fn", "(") => is_word || before == ">",
        (_, "<" | "!") => is_word || before == "::",
        (_, "(") => is_word || before == ">",
        _ => false,
    }
}
