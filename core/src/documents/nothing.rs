//! Values of Teleport's fields that ask for nothing here.
//!
//! `tctl get role` prints every option with its default. Such a value is read, because leaving it
//! out would change nothing; any other value of the same field asks for something that Anteroom
//! does not do, and is refused by name. This table is the whole list, beside what is empty: an
//! empty list, map or text is nothing in every field.

use super::tree::Plain;
use super::tree::Plain::{Flag, List, Number, Text};

/// Each field, as a path, with the values that ask for nothing.
pub(super) const ASKS_FOR_NOTHING: &[(&str, &[Plain])] = &[
    // Certificates are always in OpenSSH's own format.
    ("spec.options.cert_format", &[Text("standard")]),
    // What people hold carries no extension that a role names.
    ("spec.options.cert_extensions", &[List(&[])]),
    // No account is made anywhere, neither on nodes nor in databases or on desktops.
    ("spec.options.create_db_user", &[Flag(false)]),
    ("spec.options.create_db_user_mode", &[Text("off")]),
    ("spec.options.create_desktop_user", &[Flag(false)]),
    ("spec.options.create_host_user", &[Flag(false)]),
    ("spec.options.create_host_user_mode", &[Text("off")]),
    // There are no desktop sessions in which a clipboard or directory could be shared or kept.
    ("spec.options.desktop_clipboard", &[Flag(true), Flag(false)]),
    (
        "spec.options.desktop_directory_sharing",
        &[Flag(true), Flag(false)],
    ),
    ("spec.options.device_trust_mode", &[Text("off")]),
    // What Teleport writes into every role; it takes effect on nodes set up for it only. `disk`
    // is there only where somebody asked for it.
    (
        "spec.options.enhanced_recording",
        &[List(&[]), List(&["command", "network"])],
    ),
    // Whether the holder may use Teleport as a SAML identity provider: there is none.
    ("spec.options.idp.saml.enabled", &[Flag(true), Flag(false)]),
    ("spec.options.max_kubernetes_connections", &[Number(0)]),
    ("spec.options.mfa_verification_interval", &[Text("0s")]),
    // What happens where a session can't be recorded: it goes on. None is recorded.
    (
        "spec.options.record_session.default",
        &[Text("best_effort")],
    ),
    ("spec.options.record_session.ssh", &[Text("best_effort")]),
    ("spec.options.record_session.k8s", &[Text("best_effort")]),
    (
        "spec.options.record_session.desktop",
        &[Flag(true), Flag(false)],
    ),
    // There is one namespace.
    ("spec.allow.namespaces", &[List(&["default"])]),
    ("metadata.namespace", &[Text("default")]),
    // How Teleport writes that something never expires.
    ("metadata.expires", &[Text("0001-01-01T00:00:00Z")]),
];

/// The values of the field at `path` that ask for nothing.
pub(super) fn values(path: &str) -> &'static [Plain] {
    ASKS_FOR_NOTHING
        .iter()
        .find(|(field, _)| *field == path)
        .map_or(&[], |(_, values)| values)
}
