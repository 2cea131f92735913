//! `kubernetes_resources` of a role, and of its `request`.
//!
//! Up to v7 a kind is one word of a fixed list (`pod`), and its API group follows from it; v8 names
//! the plural and the group as `kubectl api-resources` prints them. Both are read into the same
//! rules, so that a decision knows of one form only.

use crate::kube::{KubeKinds, KubeObjects, KubeRule, KubeVerb, Place, Plural};
use crate::pattern::Pattern;
use crate::role::Set;

use super::at::{At, Fields, Map, alternatives};
use super::role::read_set;
use super::{DocumentProblem, Mistake};

const RESOURCE: Fields = Fields {
    served: &["kind", "namespace", "name", "api_group", "verbs"],
    teleport: &[],
    later: &[],
    only_allow: &[],
};

const KIND: Fields = Fields {
    served: &["kind", "api_group"],
    teleport: &[],
    later: &[],
    only_allow: &[],
};

/// The version of a role, as far as it decides what its Kubernetes fields mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// v3 to v6: `pod` only; whatever is no pod is not limited.
    PodsOnly,
    /// v7: words of a fixed list.
    Words,
    /// v8: plurals and API groups.
    Plurals,
}

impl Version {
    /// The version that `text` names; without one a document is of the newest.
    pub(super) fn of(text: Option<&str>) -> Self {
        match text {
            Some("v3" | "v4" | "v5" | "v6") => Self::PodsOnly,
            Some("v7") => Self::Words,
            Some(_) | None => Self::Plurals,
        }
    }
}

/// A kind as roles up to v7 name it.
struct Word {
    word: &'static str,
    plural: &'static str,
    group: &'static str,
    scope: Scope,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Namespaced,
    ClusterWide,
}

const fn word(word: &'static str, plural: &'static str, group: &'static str, scope: Scope) -> Word {
    Word {
        word,
        plural,
        group,
        scope,
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// The kinds of roles up to v7. `namespace` stands for what is in it as well.
const WORDS: [Word; 21] = [
    word("pod", "pods", "", Scope::Namespaced),
    word("secret", "secrets", "", Scope::Namespaced),
    word("configmap", "configmaps", "", Scope::Namespaced),
    word("namespace", "namespaces", "", Scope::ClusterWide),
    word("service", "services", "", Scope::Namespaced),
    word("serviceaccount", "serviceaccounts", "", Scope::Namespaced),
    word("kube_node", "nodes", "", Scope::ClusterWide),
    word(
        "persistentvolume",
        "persistentvolumes",
        "",
        Scope::ClusterWide,
    ),
    word(
        "persistentvolumeclaim",
        "persistentvolumeclaims",
        "",
        Scope::Namespaced,
    ),
    word("deployment", "deployments", "apps", Scope::Namespaced),
    word("replicaset", "replicasets", "apps", Scope::Namespaced),
    word("statefulset", "statefulsets", "apps", Scope::Namespaced),
    word("daemonset", "daemonsets", "apps", Scope::Namespaced),
    word("clusterrole", "clusterroles", RBAC, Scope::ClusterWide),
    word("kube_role", "roles", RBAC, Scope::Namespaced),
    word(
        "clusterrolebinding",
        "clusterrolebindings",
        RBAC,
        Scope::ClusterWide,
    ),
    word("rolebinding", "rolebindings", RBAC, Scope::Namespaced),
    word("cronjob", "cronjobs", "batch", Scope::Namespaced),
    word("job", "jobs", "batch", Scope::Namespaced),
    word(
        "certificatesigningrequest",
        "certificatesigningrequests",
        "certificates.k8s.io",
        Scope::ClusterWide,
    ),
    word(
        "ingress",
        "ingresses",
        "networking.k8s.io",
        Scope::Namespaced,
    ),
];

/// Kinds of the core group that are in namespaces, beside those in [`WORDS`].
const CORE_NAMESPACED: [&str; 6] = [
    "endpoints",
    "events",
    "limitranges",
    "podtemplates",
    "replicationcontrollers",
    "resourcequotas",
];

/// Kinds of the core group that are in none, beside those in [`WORDS`].
const CORE_WIDE: [&str; 1] = ["componentstatuses"];

/// Reads `kubernetes_resources`.
pub(super) fn read_rules(map: &Map<'_>, version: Version) -> Result<Vec<KubeRule>, Mistake> {
    let mut rules = Vec::new();
    if let Some(at) = map.get("kubernetes_resources") {
        for item in at.list()? {
            rules.extend(read_rule(&item, version)?);
        }
    }
    Ok(rules)
}

/// What `allow` means where it selects Kubernetes clusters: v7 and v8 without any rule everything,
/// and before v7 everything that is no pod as well.
pub(super) fn complete(rules: &mut Vec<KubeRule>, version: Version, labels: Option<&str>) {
    let every_pod = |rule: &KubeRule| {
        rule.objects.name.is_anything()
            && rule.objects.place == Place::Namespaced(Pattern::anything())
    };
    match version {
        Version::Words | Version::Plurals if rules.is_empty() => rules.push(everything()),
        Version::Words | Version::Plurals => {}
        // v6 without any rule has no pods; v3 to v5 have them all.
        Version::PodsOnly if rules.is_empty() && labels != Some("v6") => rules.push(everything()),
        Version::PodsOnly if rules.iter().any(every_pod) => *rules = vec![everything()],
        Version::PodsOnly => {
            let others = WORDS
                .iter()
                .filter(|word| !matches!(word.word, "pod" | "namespace"));
            rules.extend(others.map(|word| KubeRule {
                objects: KubeObjects {
                    kinds: word.kinds(),
                    place: match word.scope {
                        Scope::Namespaced => Place::Namespaced(Pattern::anything()),
                        Scope::ClusterWide => Place::ClusterWide,
                    },
                    name: Pattern::anything(),
                },
                verbs: Set::Every,
            }));
        }
    }
}

fn everything() -> KubeRule {
    KubeRule {
        objects: KubeObjects::everything(),
        verbs: Set::Every,
    }
}

/// Reads `request.kubernetes_resources`.
pub(super) fn read_kinds(map: &Map<'_>, version: Version) -> Result<Vec<KubeKinds>, Mistake> {
    let Some(at) = map.get("kubernetes_resources") else {
        return Ok(Vec::new());
    };
    let kinds = |item: &At<'_>| {
        let map = item.map(&KIND)?;
        match version {
            Version::Plurals => read_plural(&map),
            Version::PodsOnly | Version::Words => {
                Ok(read_word(&map, version)?.map_or_else(every_kind, Word::kinds))
            }
        }
    };
    at.list()?.iter().map(kinds).collect()
}

fn every_kind() -> KubeKinds {
    KubeKinds {
        plural: Plural::Every,
        group: Pattern::anything(),
    }
}

impl Word {
    fn kinds(&self) -> KubeKinds {
        KubeKinds {
            plural: Plural::Only(self.plural.to_owned()),
            group: Pattern::literal_of(self.group),
        }
    }
}

fn read_rule(at: &At<'_>, version: Version) -> Result<Vec<KubeRule>, Mistake> {
    const NAME: &str = "write the object's name, a `*` glob or a `^regex$`";
    let map = at.map(&RESOURCE)?;
    let name = read_pattern(&map.required("name", NAME)?)?;
    let namespace = match map.get("namespace") {
        Some(at) if at.text()?.is_empty() => None,
        Some(at) => Some(read_pattern(&at)?),
        None => None,
    };
    let verbs = match map.get("verbs") {
        Some(at) => {
            let words = KubeVerb::ALL.map(KubeVerb::as_str);
            let verb = |text: &str| KubeVerb::ALL.into_iter().find(|v| v.as_str() == text);
            read_set(&at, &words, verb, &[])?
        }
        None => Set::Every,
    };
    let objects = match version {
        Version::Plurals => vec![KubeObjects {
            kinds: read_plural(&map)?,
            place: read_place(&map, namespace)?,
            name,
        }],
        Version::PodsOnly | Version::Words => {
            if version == Version::PodsOnly && verbs != Set::Every {
                return Err(newer(&map, "verbs", "v7"));
            }
            read_words(&map, version, namespace, name)?
        }
    };
    let rule = |objects| KubeRule {
        objects,
        verbs: verbs.clone(),
    };
    Ok(objects.into_iter().map(rule).collect())
}

fn read_pattern(at: &At<'_>) -> Result<Pattern, Mistake> {
    Pattern::parse(at.text()?).map_err(|problem| {
        at.mistake(DocumentProblem::Pattern {
            field: at.path(),
            problem,
        })
    })
}

/// A plural and a group, as v8 has them.
fn read_plural(map: &Map<'_>) -> Result<KubeKinds, Mistake> {
    const HINT: &str = "write the plural that `kubectl api-resources` prints, as in pods, or '*'";
    let at = map.required("kind", HINT)?;
    let text = at.text()?;
    let group = match map.get("api_group") {
        Some(at) => read_pattern(&at)?,
        None => Pattern::literal_of(""),
    };
    let value = |wanted: String| {
        at.mistake(DocumentProblem::Value {
            field: at.path(),
            value: crate::id::printable(text),
            wanted,
        })
    };
    if let Some(word) = WORDS.iter().find(|word| word.word == text) {
        return Err(value(format!(
            "the plural `{}` in a role of version v8",
            word.plural
        )));
    }
    let plain = !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !plain && text != "*" {
        return Err(value(HINT.trim_start_matches("write ").to_owned()));
    }
    if group.as_str().is_empty() && scope_of(text, "").is_none() {
        const GROUP: &str = "write the API group that `kubectl api-resources` prints, as in apps, or '*'; it may be left out for kinds of the core group only";
        return Err(map.mistake(DocumentProblem::Missing {
            field: map.path_of("api_group"),
            hint: GROUP,
        }));
    }
    Ok(KubeKinds {
        plural: Plural::of_word(text),
        group,
    })
}

/// Where objects of a known kind are.
fn scope_of(plural: &str, group: &str) -> Option<Scope> {
    let known = WORDS
        .iter()
        .find(|word| word.plural == plural && word.group == group);
    if let Some(word) = known {
        return Some(word.scope);
    }
    if !group.is_empty() {
        return None;
    }
    if CORE_NAMESPACED.contains(&plural) {
        return Some(Scope::Namespaced);
    }
    CORE_WIDE.contains(&plural).then_some(Scope::ClusterWide)
}

fn read_place(map: &Map<'_>, namespace: Option<Pattern>) -> Result<Place, Mistake> {
    const HINT: &str = "objects of this kind are in namespaces; write the namespace's name, a `*` glob or a `^regex$`";
    let text = |field: &str| map.get(field).and_then(|at| at.text().ok());
    let kind = text("kind").unwrap_or_default();
    let scope = scope_of(kind, text("api_group").unwrap_or_default());
    match (namespace, scope) {
        (None, Some(Scope::Namespaced)) => Err(map.mistake(DocumentProblem::Missing {
            field: map.path_of("namespace"),
            hint: HINT,
        })),
        (None, Some(Scope::ClusterWide) | None) => Ok(Place::ClusterWide),
        // An object of a kind without namespaces is in none, whatever the rule says of them.
        (Some(namespace), Some(Scope::ClusterWide)) if namespace.is_anything() => {
            Ok(Place::ClusterWide)
        }
        (Some(namespace), None) if namespace.is_anything() => Ok(Place::Anywhere),
        (Some(namespace), _) => Ok(Place::Namespaced(namespace)),
    }
}

/// The kind as roles up to v7 name it; `None` is `*`.
fn read_word(map: &Map<'_>, version: Version) -> Result<Option<&'static Word>, Mistake> {
    const HINT: &str = "write the kind, as in pod";
    if map.get("api_group").is_some() {
        return Err(newer(map, "api_group", "v8"));
    }
    let at = map.required("kind", HINT)?;
    let text = at.text()?;
    if text == "*" && version == Version::Words {
        return Ok(None);
    }
    let word = WORDS.iter().find(|word| word.word == text);
    match word {
        Some(word) if version == Version::Words || word.word == "pod" => Ok(Some(word)),
        Some(_) | None => {
            let wanted = match version {
                Version::PodsOnly => "pod, or give the role a version of v7 or v8".to_owned(),
                Version::Words | Version::Plurals => {
                    let words: Vec<&str> =
                        WORDS.iter().map(|word| word.word).chain(["'*'"]).collect();
                    alternatives(&words)
                }
            };
            Err(at.mistake(DocumentProblem::Value {
                field: at.path(),
                value: crate::id::printable(text),
                wanted,
            }))
        }
    }
}

fn newer(map: &Map<'_>, field: &str, version: &'static str) -> Mistake {
    let problem = DocumentProblem::NeedsVersion {
        field: map.path_of(field),
        version,
    };
    match map.get(field) {
        Some(at) => at.mistake(problem),
        None => map.mistake(problem),
    }
}

/// What a rule up to v7 means in plurals and groups.
fn read_words(
    map: &Map<'_>,
    version: Version,
    namespace: Option<Pattern>,
    name: Pattern,
) -> Result<Vec<KubeObjects>, Mistake> {
    const HINT: &str = "write the namespace's name, a `*` glob or a `^regex$`";
    let word = read_word(map, version)?;
    let in_namespaces = || match &namespace {
        Some(namespace) if namespace.is_anything() && word.is_none() => Ok(Place::Anywhere),
        Some(namespace) => Ok(Place::Namespaced(namespace.clone())),
        None => Err(map.mistake(DocumentProblem::Missing {
            field: map.path_of("namespace"),
            hint: HINT,
        })),
    };
    let wide = |word: &Word| KubeObjects {
        kinds: word.kinds(),
        place: Place::ClusterWide,
        name: name.clone(),
    };
    Ok(match word {
        // The namespace, and what is in it.
        Some(word) if word.word == "namespace" => vec![
            wide(word),
            KubeObjects {
                kinds: every_kind(),
                place: Place::Namespaced(name.clone()),
                name: Pattern::anything(),
            },
        ],
        // The namespace of a kind that is in none says nothing.
        Some(word) if word.scope == Scope::ClusterWide => vec![wide(word)],
        Some(word) => vec![KubeObjects {
            kinds: word.kinds(),
            place: in_namespaces()?,
            name,
        }],
        None => {
            let namespaced = KubeObjects {
                kinds: every_kind(),
                place: in_namespaces()?,
                name: name.clone(),
            };
            // Kinds that are in no namespace never looked at it.
            let others = WORDS
                .iter()
                .filter(|word| word.scope == Scope::ClusterWide && word.word != "namespace");
            std::iter::once(namespaced)
                .chain(others.map(wide))
                .collect()
        }
    })
}
