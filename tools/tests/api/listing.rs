//! The public items of a crate as its users see them, a line each.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::{
    Attribute, Fields, FnArg, Generics, ImplItem, Item, ItemImpl, Pat, Signature, Token, TraitItem,
    Type, Visibility,
};

use super::modules::{Found, ItemId, Module, Modules, conditions, is_public, join, leaves, parts};
use super::text::text;

/// What of an item's attributes changes how it is used.
const ATTRIBUTES: [&str; 5] = ["bitfield", "bits", "deprecated", "non_exhaustive", "repr"];

/// They define nothing that has a name outside.
const MACROS_WITHOUT_ITEMS: [&str; 2] = ["assert_layout", "thread_local"];

/// A path that users name an item by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Public {
    /// The shortest is the one that the item is listed with.
    length: usize,
    path: String,
    cfg: Vec<String>,
}

/// Whose a type or a trait is.
enum Owner {
    Public(Public),
    /// The crate's, and no user sees it.
    Private,
    Foreign,
}

struct Listing<'a> {
    modules: &'a Modules,
    public: BTreeMap<ItemId, BTreeSet<Public>>,
    /// Each with the path that it is sorted by; what an item is comes before what it implements.
    lines: BTreeSet<(Vec<String>, bool, String)>,
}

/// The lines of a crate, in order.
pub(crate) fn list(modules: &Modules) -> Vec<String> {
    let mut listing = Listing {
        modules,
        public: BTreeMap::new(),
        lines: BTreeSet::new(),
    };
    listing.export_module("", "", &[]);
    let public = listing.public.clone();
    for (id, paths) in &public {
        let mut paths = paths.iter();
        let listed = paths.next().unwrap();
        listing.item(listed, listing.modules.item(id));
        for other in paths {
            let use_of = format!("pub use {} = {}", other.path, listed.path);
            listing.add(&other.path, &other.cfg, use_of);
        }
    }
    for (place, module) in &modules.0 {
        for item in &module.items {
            if let Item::Impl(item) = item {
                listing.implementation(place, module, item);
            }
        }
        let is_touched = public.keys().any(|(of, _)| of == place);
        if is_touched {
            listing.macros(place, module);
        }
    }
    listing.lines.into_iter().map(|(_, _, line)| line).collect()
}

impl Listing<'_> {
    fn add(&mut self, path: &str, cfg: &[String], line: String) {
        let mut conditions = cfg.to_vec();
        conditions.sort();
        conditions.dedup();
        let conditions = conditions.iter().map(|c| format!("#[cfg({c})] "));
        let path = path.split("::").map(str::to_owned).collect();
        let is_impl = !line.contains("pub ");
        let line = conditions.collect::<String>() + &line;
        self.lines.insert((path, is_impl, line));
    }

    /// Everything public in the module is to be had below `path`.
    fn export_module(&mut self, place: &str, path: &str, cfg: &[String]) {
        let modules = self.modules;
        for (index, item) in modules.0[place].items.iter().enumerate() {
            let id = (place.to_owned(), index);
            match item {
                Item::Mod(item) if is_public(&item.vis) => {
                    let Some(own) = conditions(&item.attrs) else {
                        continue;
                    };
                    let name = item.ident.to_string();
                    let cfg = [cfg, &own].concat();
                    let path = join(path, &name);
                    self.add(&path, &cfg, format!("pub mod {path}"));
                    self.export_module(&join(place, &name), &path, &cfg);
                }
                Item::Use(item) if is_public(&item.vis) => {
                    let Some(own) = conditions(&item.attrs) else {
                        continue;
                    };
                    let cfg = [cfg, &own].concat();
                    for leaf in leaves(&item.tree) {
                        self.export_use(place, path, &cfg, &leaf.path, leaf.name.as_deref());
                    }
                }
                Item::Macro(item) if item.ident.is_none() => self.publish(id, path, "", cfg),
                item => {
                    if let (Some(name), Some(Visibility::Public(_)), _) = parts(item) {
                        self.publish(id, path, &name.to_string(), cfg);
                    }
                }
            }
        }
    }

    fn export_use(
        &mut self,
        place: &str,
        path: &str,
        cfg: &[String],
        of: &[String],
        name: Option<&str>,
    ) {
        let mut found = self.modules.resolve(place, of);
        if found.is_empty() {
            found.push(Found::Foreign(of.join("::")));
        }
        for found in found {
            match (found, name) {
                (Found::Foreign(of), _) => {
                    let path = join(path, name.unwrap_or("*"));
                    self.add(&path, cfg, format!("pub use {path} = {of}"));
                }
                (Found::Module(module), None) => self.export_module(&module, path, cfg),
                (Found::Module(module), Some(name)) if self.modules.0[&module].public => {
                    let path = join(path, name);
                    self.add(&path, cfg, format!("pub mod {path}"));
                    self.export_module(&module, &path, cfg);
                }
                (Found::Item(id), Some(name)) => self.publish(id, path, name, cfg),
                (Found::Item(_) | Found::Module(_), _) => {}
            }
        }
    }

    fn publish(&mut self, id: ItemId, parent: &str, name: &str, cfg: &[String]) {
        let item = self.modules.item(&id);
        let Some(own) = conditions(parts(item).2) else {
            return;
        };
        let path = match item {
            Item::Macro(_) => parent.to_owned(),
            _ => join(parent, name),
        };
        let around = &self.modules.0[&id.0].cfg;
        let public = Public {
            length: path.split("::").count(),
            path,
            cfg: [cfg, around, &own].concat(),
        };
        self.public.entry(id).or_default().insert(public);
    }

    /// A module-level item and what belongs to its definition.
    fn item(&mut self, public: &Public, item: &Item) {
        let (path, cfg) = (&public.path, &public.cfg);
        let kept = kept(parts(item).2);
        let named = |word: &str, generics: &Generics| {
            let start = format!("{kept}pub {word} {path}{}", text(generics));
            (start, bounds(generics))
        };
        for derived in derives(parts(item).2) {
            self.add(path, cfg, format!("impl {derived} for {path}"));
        }
        match item {
            Item::Const(item) => {
                self.add(path, cfg, format!("pub const {path}: {}", text(&item.ty)))
            }
            Item::Static(item) => {
                self.add(path, cfg, format!("pub static {path}: {}", text(&item.ty)));
            }
            Item::Fn(item) => self.function(path, cfg, &item.sig, ""),
            Item::Type(item) => {
                let (start, bounds) = named("type", &item.generics);
                self.add(path, cfg, format!("{start} = {}{bounds}", text(&item.ty)));
            }
            Item::Struct(item) => {
                let (start, bounds) = named("struct", &item.generics);
                let shape = shape(&item.fields);
                self.add(path, cfg, format!("{start}{shape}{bounds}"));
                for field in &item.fields {
                    let (Some(name), true) = (&field.ident, is_public(&field.vis)) else {
                        continue;
                    };
                    let path = join(path, &name.to_string());
                    let kept = self::kept(&field.attrs);
                    self.add(&path, cfg, format!("{kept}pub {path}: {}", text(&field.ty)));
                }
            }
            Item::Enum(item) => {
                let (start, bounds) = named("enum", &item.generics);
                self.add(path, cfg, format!("{start}{bounds}"));
                for variant in &item.variants {
                    let Some(own) = conditions(&variant.attrs) else {
                        continue;
                    };
                    let path = join(path, &variant.ident.to_string());
                    let kept = self::kept(&variant.attrs);
                    let mut line = format!("{kept}pub {path}");
                    match &variant.fields {
                        Fields::Unit => {}
                        Fields::Named(fields) => {
                            let field =
                                |f: &syn::Field| format!("{}: {}", text(&f.ident), text(&f.ty));
                            let fields = fields.named.iter().map(field).collect::<Vec<_>>();
                            line += &format!(" {{ {} }}", fields.join(", "));
                        }
                        Fields::Unnamed(fields) => {
                            let fields = fields.unnamed.iter().map(|f| text(&f.ty));
                            line += &format!("({})", fields.collect::<Vec<_>>().join(", "));
                        }
                    }
                    if let Some((_, value)) = &variant.discriminant {
                        line += &format!(" = {}", text(value));
                    }
                    self.add(&path, &[&cfg[..], &own].concat(), line);
                }
            }
            Item::Trait(item) => {
                let (start, bounds) = named("trait", &item.generics);
                let above = match item.supertraits.is_empty() {
                    true => String::new(),
                    false => format!(": {}", text(&item.supertraits)),
                };
                self.add(path, cfg, format!("{start}{above}{bounds}"));
                for item in &item.items {
                    self.trait_item(path, cfg, item);
                }
            }
            Item::Macro(_) => {}
            _ => unreachable!("a name was found"),
        }
    }

    fn trait_item(&mut self, of: &str, cfg: &[String], item: &TraitItem) {
        let attributes = match item {
            TraitItem::Const(item) => &item.attrs,
            TraitItem::Fn(item) => &item.attrs,
            TraitItem::Type(item) => &item.attrs,
            _ => panic!("{of} has an item that is not known here"),
        };
        let Some(own) = conditions(attributes) else {
            return;
        };
        let cfg = [cfg, &own].concat();
        match item {
            TraitItem::Fn(item) => {
                let path = join(of, &item.sig.ident.to_string());
                // What has a body need not be implemented.
                let body = item.default.as_ref().map_or("", |_| " { .. }");
                self.function(&path, &cfg, &item.sig, body);
            }
            TraitItem::Const(item) => {
                let path = join(of, &item.ident.to_string());
                let body = item.default.as_ref().map_or("", |_| " = ..");
                let line = format!("pub const {path}: {}{body}", text(&item.ty));
                self.add(&path, &cfg, line);
            }
            TraitItem::Type(item) => {
                let path = join(of, &item.ident.to_string());
                let bounds = match item.bounds.is_empty() {
                    true => String::new(),
                    false => format!(": {}", text(&item.bounds)),
                };
                self.add(&path, &cfg, format!("pub type {path}{bounds}"));
            }
            _ => {}
        }
    }

    /// A function or a method; `after` is what follows its signature.
    fn function(&mut self, path: &str, cfg: &[String], sig: &Signature, after: &str) {
        let mut sig = sig.clone();
        for argument in &mut sig.inputs {
            // That a function changes its own copy is nobody else's.
            match argument {
                FnArg::Receiver(receiver) => receiver.mutability = None,
                FnArg::Typed(argument) => {
                    if let Pat::Ident(name) = &mut *argument.pat {
                        name.mutability = None;
                    }
                }
            }
        }
        let start = format!("fn {}", sig.ident);
        let line = text(&sig).replacen(&start, &format!("fn {path}"), 1);
        self.add(path, cfg, format!("pub {line}{after}"));
    }

    fn implementation(&mut self, place: &str, module: &Module, item: &ItemImpl) {
        let Some(own) = conditions(&item.attrs) else {
            return;
        };
        let of_trait = item.trait_.as_ref().map(|(path, _)| path);
        let subject = match &*item.self_ty {
            Type::Path(path) => self.owner(place, &path.path),
            _ => Owner::Foreign,
        };
        let of = of_trait.map(|path| self.owner(place, path));
        let is_ours = matches!(subject, Owner::Public(_));
        // Users see it where they see both, and at the one of the two that is ours.
        let public = match (subject, of) {
            (Owner::Private, _) | (_, Some(Owner::Private)) => return,
            (Owner::Public(public), _) | (_, Some(Owner::Public(public))) => public,
            (Owner::Foreign, _) => return,
        };
        let cfg = [&public.cfg[..], &module.cfg, &own].concat();
        let generics = text(&item.generics);
        let bounds = bounds(&item.generics);
        let mut subject_text = text(&item.self_ty);
        if is_ours {
            let arguments = subject_text.find('<').map(|at| subject_text.split_off(at));
            subject_text = public.path.clone() + &arguments.unwrap_or_default();
        }
        let Some(of_trait) = of_trait else {
            let within = match generics.contains(':') || !bounds.is_empty() {
                true => format!(" (of impl{generics} {subject_text}{bounds})"),
                false => String::new(),
            };
            for item in &item.items {
                self.associated(&public.path, &cfg, item, &within);
            }
            return;
        };
        let types = item.items.iter().filter_map(|item| match item {
            ImplItem::Type(item) => {
                Some(format!(" {{ type {} = {} }}", item.ident, text(&item.ty)))
            }
            _ => None,
        });
        let unsafety = item.unsafety.map_or("", |_| "unsafe ");
        // Not the path: one file says `fmt::Debug` where another says `Debug`.
        let of_trait = text(of_trait.segments.last());
        let line = format!("{unsafety}impl{generics} {of_trait} for {subject_text}{bounds}");
        let line = types.fold(line, |line, of| line + &of);
        self.add(&public.path, &cfg, line);
    }

    /// Whose a type or a trait is.
    fn owner(&self, place: &str, path: &syn::Path) -> Owner {
        let names = path.segments.iter().map(|s| s.ident.to_string());
        let names: Vec<_> = names.collect();
        for found in self.modules.resolve(place, &names) {
            let Found::Item(id) = found else {
                continue;
            };
            let public = self.public.get(&id).and_then(|paths| paths.first());
            return match (self.modules.item(&id), public) {
                (Item::Macro(_), Some(public)) => {
                    let path = join(&public.path, &names[names.len() - 1]);
                    Owner::Public(Public {
                        path,
                        ..public.clone()
                    })
                }
                (Item::Macro(_), None) => continue,
                (_, Some(public)) => Owner::Public(public.clone()),
                (_, None) => Owner::Private,
            };
        }
        Owner::Foreign
    }

    fn associated(&mut self, of: &str, cfg: &[String], item: &ImplItem, within: &str) {
        let (attributes, visibility) = match item {
            ImplItem::Const(item) => (&item.attrs, &item.vis),
            ImplItem::Fn(item) => (&item.attrs, &item.vis),
            _ => panic!("an impl of {of} has an item that is not known here"),
        };
        let Some(own) = conditions(attributes).filter(|_| is_public(visibility)) else {
            return;
        };
        let cfg = [cfg, &own].concat();
        match item {
            ImplItem::Fn(item) => {
                let path = join(of, &item.sig.ident.to_string());
                self.function(&path, &cfg, &item.sig, within);
            }
            ImplItem::Const(item) => {
                let path = join(of, &item.ident.to_string());
                self.add(
                    &path,
                    &cfg,
                    format!("pub const {path}: {}{within}", text(&item.ty)),
                );
            }
            _ => {}
        }
    }

    /// Macros are listed with what they are given: what they make of it is not known here.
    fn macros(&mut self, place: &str, module: &Module) {
        for item in &module.items {
            let Item::Macro(item) = item else {
                continue;
            };
            let name = text(&item.mac.path);
            if item.ident.is_some() || MACROS_WITHOUT_ITEMS.contains(&name.as_str()) {
                continue;
            }
            let path = join(place, &name);
            for entry in entries(item.mac.tokens.clone()) {
                self.add(&path, &module.cfg, format!("{path}!: {entry}"));
            }
        }
    }
}

/// The attributes that are listed, each with a space behind it.
fn kept(attributes: &[Attribute]) -> String {
    let is_kept = |a: &&Attribute| ATTRIBUTES.iter().any(|name| a.path().is_ident(name));
    let kept = attributes.iter().filter(is_kept);
    kept.map(|attribute| text(attribute) + " ").collect()
}

/// The traits that are derived.
fn derives(attributes: &[Attribute]) -> Vec<String> {
    let lists = attributes.iter().filter(|a| a.path().is_ident("derive"));
    let paths = lists.flat_map(|list| {
        let parse = Punctuated::<syn::Path, Token![,]>::parse_terminated;
        list.parse_args_with(parse).unwrap()
    });
    paths.map(|path| text(path.segments.last())).collect()
}

fn bounds(generics: &Generics) -> String {
    let bounds = generics.where_clause.as_ref();
    bounds.map_or(String::new(), |bounds| format!(" {}", text(bounds)))
}

/// What stands behind the name of a struct; its named fields have lines of their own.
fn shape(fields: &Fields) -> String {
    let has_private = fields.iter().any(|field| !is_public(&field.vis));
    match fields {
        Fields::Unit => String::new(),
        Fields::Named(_) if has_private => " { .. }".to_owned(),
        Fields::Named(_) => " {}".to_owned(),
        Fields::Unnamed(fields) => {
            let fields = fields
                .unnamed
                .iter()
                .map(|field| match is_public(&field.vis) {
                    true => format!("pub {}", text(&field.ty)),
                    false => "_".to_owned(),
                });
            format!("({})", fields.collect::<Vec<_>>().join(", "))
        }
    }
}

/// What a macro is given, cut at its semicolons; what stands before a block is repeated for each piece of it.
fn entries(tokens: TokenStream) -> Vec<String> {
    let tokens: Vec<_> = tokens.into_iter().collect();
    if let [before @ .., TokenTree::Group(block)] = &tokens[..]
        && block.delimiter() == Delimiter::Brace
    {
        let before = text(before.iter().cloned().collect::<TokenStream>());
        let inner = entries(block.stream()).into_iter();
        return inner.map(|entry| format!("{before}: {entry}")).collect();
    }
    let is_end = |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.as_char() == ';');
    let pieces = tokens.split(is_end).filter(|piece| !piece.is_empty());
    pieces
        .map(|piece| text(piece.iter().cloned().collect::<TokenStream>()))
        .collect()
}
