//! The functions by name, and those of Teleport's that are not served.

/// A function, by how many arguments it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    One(One),
    Two(Two),
    Three(Three),
    Any(Any),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum One {
    IsEmpty,
    Exists,
    LabelsMatching,
    EmailLocal,
    Upper,
    Lower,
    Day,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Two {
    Contains,
    ContainsAny,
    ContainsAll,
    Equals,
    HasPrefix,
    RegexpMatch,
    Split,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Three {
    RegexpReplace,
    ReplaceAll,
    ClockBetween,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Any {
    Search,
    Set,
    Union,
    Remove,
}

/// How a function is called.
pub(super) struct Signature {
    pub(super) name: &'static str,
    pub(super) function: Function,
    /// With its arguments, for messages.
    pub(super) form: &'static str,
    /// Whether it may stand behind its first argument, `list.contains(text)`.
    pub(super) method: Method,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// As a function only.
    No,
    /// In both forms.
    Yes,
    /// As a method only.
    Only,
}

const fn plain(name: &'static str, function: Function, form: &'static str) -> Signature {
    Signature {
        name,
        function,
        form,
        method: Method::No,
    }
}

const fn both(name: &'static str, function: Function, form: &'static str) -> Signature {
    Signature {
        name,
        function,
        form,
        method: Method::Yes,
    }
}

const fn method(name: &'static str, function: Function, form: &'static str) -> Signature {
    Signature {
        name,
        function,
        form,
        method: Method::Only,
    }
}

/// Every function, in the order of the documentation. Teleport has some under two names, in
/// different places; here each name works everywhere.
pub(super) const FUNCTIONS: &[Signature] = &[
    both(
        "contains",
        Function::Two(Two::Contains),
        "contains(list, text)",
    ),
    both(
        "contains_any",
        Function::Two(Two::ContainsAny),
        "contains_any(list, list)",
    ),
    both(
        "contains_all",
        Function::Two(Two::ContainsAll),
        "contains_all(list, list)",
    ),
    both("is_empty", Function::One(One::IsEmpty), "is_empty(list)"),
    both("isempty", Function::One(One::IsEmpty), "isempty(list)"),
    plain("equals", Function::Two(Two::Equals), "equals(a, b)"),
    plain(
        "exists",
        Function::One(One::Exists),
        "exists(labels[\"key\"])",
    ),
    plain(
        "hasPrefix",
        Function::Two(Two::HasPrefix),
        "hasPrefix(text, prefix)",
    ),
    plain(
        "has_prefix",
        Function::Two(Two::HasPrefix),
        "has_prefix(text, prefix)",
    ),
    plain("search", Function::Any(Any::Search), "search(\"word\", …)"),
    plain(
        "regexp.match",
        Function::Two(Two::RegexpMatch),
        "regexp.match(list, \"pattern\")",
    ),
    plain(
        "regexp.replace",
        Function::Three(Three::RegexpReplace),
        "regexp.replace(list, \"regex\", \"replacement\")",
    ),
    plain(
        "labels_matching",
        Function::One(One::LabelsMatching),
        "labels_matching(\"pattern\")",
    ),
    plain(
        "email.local",
        Function::One(One::EmailLocal),
        "email.local(list)",
    ),
    plain(
        "strings.upper",
        Function::One(One::Upper),
        "strings.upper(list)",
    ),
    plain(
        "strings.lower",
        Function::One(One::Lower),
        "strings.lower(list)",
    ),
    plain(
        "strings.replaceall",
        Function::Three(Three::ReplaceAll),
        "strings.replaceall(list, \"from\", \"to\")",
    ),
    plain("split", Function::Two(Two::Split), "split(text, separator)"),
    plain(
        "strings.split",
        Function::Two(Two::Split),
        "strings.split(list, separator)",
    ),
    plain("set", Function::Any(Any::Set), "set(text, …)"),
    plain("union", Function::Any(Any::Union), "union(list, …)"),
    method("add", Function::Any(Any::Union), "list.add(text, …)"),
    method("remove", Function::Any(Any::Remove), "list.remove(text, …)"),
    both("day", Function::One(One::Day), "day(time)"),
    both(
        "clock_between",
        Function::Three(Three::ClockBetween),
        "clock_between(time, \"HH:MM\", \"HH:MM\")",
    ),
];

/// Functions and methods of Teleport's predicate languages that are not served, with what to
/// write instead.
pub(super) const NOT_SERVED: &[(&str, &str)] = &[
    ("ifelse", "; write `(a && b) || (!a && c)`"),
    ("choose", "; write the conditions with `&&` and `||`"),
    ("option", "; write the conditions with `&&` and `||`"),
    ("dict", ""),
    ("pair", ""),
    ("put", ""),
    ("add_values", ""),
    ("len", "; whether a list is empty is `is_empty(list)`"),
    ("all_end_with", ""),
    ("all_equal", ""),
    ("is_subset", "; write `contains_all(list, list)`"),
    ("can_view", ""),
    ("system.catype", "; it is `resource.spec.type` here"),
];

/// The signature behind `name`.
pub(super) fn find(name: &str) -> Option<&'static Signature> {
    FUNCTIONS.iter().find(|known| known.name == name)
}
