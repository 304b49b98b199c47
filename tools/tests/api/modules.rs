//! A crate's modules as they are in its sources, and what a name in one of them stands for.

use std::collections::BTreeMap;
use std::path::Path;

use syn::{Attribute, Ident, Item, UseTree, Visibility};

use super::text::text;

/// A module by its place in the sources: `target::disk`; the root is empty.
pub(crate) type Place = String;

/// One item: its module, and its place among the items there.
pub(crate) type ItemId = (Place, usize);

pub(crate) struct Module {
    pub(crate) items: Vec<Item>,
    /// It is declared with `pub`.
    pub(crate) public: bool,
    /// What it and the modules around it stand behind.
    pub(crate) cfg: Vec<String>,
}

pub(crate) struct Modules(pub(crate) BTreeMap<Place, Module>);

/// What a path stands for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    Item(ItemId),
    Module(Place),
    /// Of another crate.
    Foreign(String),
}

/// One name that a `use` brings in; a glob has none.
pub(crate) struct Leaf {
    pub(crate) path: Vec<String>,
    pub(crate) name: Option<String>,
}

pub(crate) fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// `a::b`, and `b` where `a` is the root.
pub(crate) fn join(place: &str, name: &str) -> String {
    if place.is_empty() {
        return name.to_owned();
    }
    format!("{place}::{name}")
}

/// The conditions of `#[cfg(…)]`, or nothing if no user ever sees the item.
pub(crate) fn conditions(attributes: &[Attribute]) -> Option<Vec<String>> {
    let mut conditions = Vec::new();
    for attribute in attributes {
        let Ok(list) = attribute.meta.require_list() else {
            continue;
        };
        let condition = text(list.tokens.clone());
        let of_tests = ["test", "doctest", "all(test"];
        if list.path.is_ident("cfg") {
            if of_tests.iter().any(|word| condition.starts_with(word)) {
                return None;
            }
            conditions.push(condition);
        } else if list.path.is_ident("doc") && condition == "hidden" {
            return None;
        }
    }
    Some(conditions)
}

/// All names of a `use`.
pub(crate) fn leaves(tree: &UseTree) -> Vec<Leaf> {
    let leaf = |path: Vec<String>, name| vec![Leaf { path, name }];
    match tree {
        UseTree::Path(path) => {
            let mut leaves = leaves(&path.tree);
            for leaf in &mut leaves {
                leaf.path.insert(0, path.ident.to_string());
            }
            leaves
        }
        UseTree::Name(name) => leaf(vec![name.ident.to_string()], Some(name.ident.to_string())),
        UseTree::Rename(name) => leaf(vec![name.ident.to_string()], Some(name.rename.to_string())),
        UseTree::Glob(_) => leaf(Vec::new(), None),
        UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
    }
}

/// The name that an item defines, who sees it, and its attributes.
pub(crate) fn parts(item: &Item) -> (Option<&Ident>, Option<&Visibility>, &[Attribute]) {
    match item {
        Item::Const(item) => (Some(&item.ident), Some(&item.vis), &item.attrs),
        Item::Enum(item) => (Some(&item.ident), Some(&item.vis), &item.attrs),
        Item::Fn(item) => (Some(&item.sig.ident), Some(&item.vis), &item.attrs),
        Item::Static(item) => (Some(&item.ident), Some(&item.vis), &item.attrs),
        Item::Struct(item) => (Some(&item.ident), Some(&item.vis), &item.attrs),
        Item::Trait(item) => (Some(&item.ident), Some(&item.vis), &item.attrs),
        Item::Type(item) => (Some(&item.ident), Some(&item.vis), &item.attrs),
        Item::Macro(item) => (None, None, &item.attrs),
        _ => (None, None, &[]),
    }
}

/// Whether a macro may define the name: it stands among what the macro is given.
fn is_named_in_macro(item: &Item, name: &str) -> bool {
    let Item::Macro(item) = item else {
        return false;
    };
    let mut tokens = item.mac.tokens.clone().into_iter();
    tokens.any(|token| matches!(token, proc_macro2::TokenTree::Ident(word) if word == name))
}

impl Modules {
    /// Of the folder with `lib.rs`.
    pub(crate) fn load(folder: &Path) -> Modules {
        let source = std::fs::read_to_string(folder.join("lib.rs")).unwrap();
        Modules::parse(&source, &|place| {
            let file = folder.join(place.replace("::", "/"));
            let read = std::fs::read_to_string(file.with_extension("rs"));
            read.or_else(|_| std::fs::read_to_string(file.join("mod.rs")))
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        })
    }

    /// Of the root's source; `read` has those of modules with a file of their own.
    pub(crate) fn parse(source: &str, read: &dyn Fn(&str) -> String) -> Modules {
        let mut modules = Modules(BTreeMap::new());
        let items = syn::parse_file(source).unwrap().items;
        let (public, cfg) = (true, Vec::new());
        modules.add(String::new(), Module { items, public, cfg }, read);
        modules
    }

    fn add(&mut self, place: Place, module: Module, read: &dyn Fn(&str) -> String) {
        for item in &module.items {
            let Item::Mod(item) = item else {
                continue;
            };
            let Some(conditions) = conditions(&item.attrs) else {
                continue;
            };
            let below = join(&place, &item.ident.to_string());
            let items = match &item.content {
                Some((_, items)) => items.clone(),
                None => syn::parse_file(&read(&below)).unwrap().items,
            };
            let public = is_public(&item.vis);
            let cfg = [module.cfg.clone(), conditions].concat();
            self.add(below, Module { items, public, cfg }, read);
        }
        self.0.insert(place, module);
    }

    /// What a path stands for in the module; nothing if the module does not have its first name.
    pub(crate) fn resolve(&self, from: &str, path: &[String]) -> Vec<Found> {
        self.resolve_within(from, path, &mut Vec::new())
    }

    /// `seen` has the names that are being looked for: globs of a module and its parent name one another.
    fn resolve_within(
        &self,
        from: &str,
        path: &[String],
        seen: &mut Vec<(Place, String)>,
    ) -> Vec<Found> {
        let parent = || from.rsplit_once("::").map_or("", |(parent, _)| parent);
        let (mut found, mut rest) = match path.first().map(String::as_str) {
            None => return vec![Found::Module(from.to_owned())],
            Some("crate") => (vec![Found::Module(String::new())], &path[1..]),
            Some("self") => (vec![Found::Module(from.to_owned())], &path[1..]),
            Some("super") => (vec![Found::Module(parent().to_owned())], &path[1..]),
            Some(name) => (self.look_up(from, name, seen), &path[1..]),
        };
        while let Some(name) = rest.first() {
            let modules = found.iter().filter_map(|found| match found {
                Found::Module(place) if name == "super" => {
                    let above = place.rsplit_once("::").map_or("", |(parent, _)| parent);
                    Some(vec![Found::Module(above.to_owned())])
                }
                Found::Module(place) => Some(self.look_up(place, name, seen)),
                Found::Foreign(path) => Some(vec![Found::Foreign(join(path, name))]),
                Found::Item(_) => None,
            });
            found = modules.collect::<Vec<_>>().concat();
            rest = &rest[1..];
        }
        found
    }

    fn look_up(&self, place: &str, name: &str, seen: &mut Vec<(Place, String)>) -> Vec<Found> {
        let key = (place.to_owned(), name.to_owned());
        if seen.contains(&key) {
            return Vec::new();
        }
        seen.push(key);
        let found = self.look_up_new(place, name, seen);
        seen.pop();
        found
    }

    fn look_up_new(&self, place: &str, name: &str, seen: &mut Vec<(Place, String)>) -> Vec<Found> {
        let mut found = Vec::new();
        let below = join(place, name);
        if self.0.contains_key(&below) {
            found.push(Found::Module(below));
        }
        let items = &self.0[place].items;
        let numbered = || items.iter().enumerate();
        let own = numbered().filter(|(_, item)| parts(item).0.is_some_and(|ident| ident == name));
        found.extend(own.map(|(index, _)| Found::Item((place.to_owned(), index))));
        let uses = || {
            items.iter().filter_map(|item| match item {
                Item::Use(item) if conditions(&item.attrs).is_some() => Some(item),
                _ => None,
            })
        };
        for leaf in uses().flat_map(|item| leaves(&item.tree)) {
            if leaf.name.as_deref() != Some(name) {
                continue;
            }
            let there = self.resolve_within(place, &leaf.path, seen);
            let first = leaf.path.first().is_some_and(|first| {
                !matches!(first.as_str(), "crate" | "self" | "super") && !self.has(place, first)
            });
            if there.is_empty() && first {
                found.push(Found::Foreign(leaf.path.join("::")));
            }
            found.extend(there);
        }
        if found.is_empty() {
            let by_macro = numbered().filter(|(_, item)| is_named_in_macro(item, name));
            found.extend(by_macro.map(|(index, _)| Found::Item((place.to_owned(), index))));
        }
        if found.is_empty() {
            let globs = uses().flat_map(|item| leaves(&item.tree));
            for leaf in globs.filter(|leaf| leaf.name.is_none()) {
                for there in self.resolve_within(place, &leaf.path, seen) {
                    if let Found::Module(module) = there {
                        found.extend(self.look_up(&module, name, seen));
                    }
                }
            }
        }
        found.dedup();
        found
    }

    pub(crate) fn item(&self, (place, index): &ItemId) -> &Item {
        &self.0[place].items[*index]
    }

    /// Whether the module has a module or a `use` of that name.
    fn has(&self, place: &str, name: &str) -> bool {
        self.0.contains_key(&join(place, name))
    }
}
