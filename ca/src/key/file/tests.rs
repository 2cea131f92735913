use ssh_key::Algorithm;

use super::*;
use crate::authority::NodeCa;
use crate::test_rng;

fn seeded(byte: u8) -> Key {
    Key::from_seed("test key", &[byte; 32])
}

fn private_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    dir
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_created_key_loads_as_the_same_key() {
    let dir = private_dir();
    let path = dir.path().join("node");
    seeded(1).create_new(&path).unwrap();
    let loaded = Key::load(&path).unwrap();
    assert_eq!(loaded.public_key(), seeded(1).public_key());
    assert_eq!(loaded.public_key().comment().to_string(), "test key");
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&dir.path().join("node.pub")), 0o644);
    let names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "no draft stays behind: {names:?}");
}

#[test]
fn an_existing_key_is_never_overwritten() {
    let dir = private_dir();
    let path = dir.path().join("node");
    seeded(1).create_new(&path).unwrap();
    let error = seeded(2).create_new(&path).unwrap_err();
    assert!(matches!(error, KeyError::Exists { .. }), "{error}");
    assert_eq!(
        Key::load(&path).unwrap().public_key(),
        seeded(1).public_key()
    );
    let public = fs::read_to_string(dir.path().join("node.pub")).unwrap();
    assert_eq!(
        PublicKey::from_openssh(&public).unwrap(),
        *seeded(1).public_key()
    );
}

#[test]
fn a_key_file_wider_than_0600_is_refused_with_the_chmod_line() {
    let dir = private_dir();
    let path = dir.path().join("node");
    seeded(1).create_new(&path).unwrap();
    for wide in [0o640, 0o604, 0o620, 0o602, 0o601, 0o644, 0o700, 0o4600] {
        fs::set_permissions(&path, Permissions::from_mode(wide)).unwrap();
        let error = Key::load(&path).unwrap_err();
        assert!(
            matches!(error, KeyError::FileTooWide { mode, .. } if mode == wide),
            "{wide:o}: {error}"
        );
        assert!(
            error
                .to_string()
                .contains(&format!("`chmod 0600 {}`", path.display()))
        );
    }
    for narrow in [0o600, 0o400] {
        fs::set_permissions(&path, Permissions::from_mode(narrow)).unwrap();
        Key::load(&path).unwrap();
    }
}

#[test]
fn a_directory_wider_than_0700_is_refused_for_loading_and_creating() {
    let dir = private_dir();
    let path = dir.path().join("node");
    seeded(1).create_new(&path).unwrap();
    for wide in [0o701, 0o710, 0o750, 0o755, 0o777] {
        fs::set_permissions(dir.path(), Permissions::from_mode(wide)).unwrap();
        let error = Key::load(&path).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("`chmod 0700 {}`", dir.path().display())),
            "{error}"
        );
        let error = seeded(2).create_new(&dir.path().join("host")).unwrap_err();
        assert!(matches!(error, KeyError::DirectoryTooWide { mode, .. } if mode == wide));
    }
    assert!(!dir.path().join("host").exists());
}

#[test]
fn what_is_no_plain_ed25519_key_file_is_refused_by_its_own_name() {
    let dir = private_dir();
    let path = dir.path().join("k");
    assert!(matches!(Key::load(&path), Err(KeyError::Missing { .. })));
    assert!(matches!(
        Key::load(dir.path()),
        Err(KeyError::DirectoryTooWide { .. } | KeyError::NotAFile { .. })
    ));
    write_synced(
        &path,
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
        Mode::Private,
    )
    .unwrap();
    assert!(matches!(Key::load(&path), Err(KeyError::Malformed { .. })));
    fs::write(&path, vec![b'a'; FILE_LIMIT as usize + 1]).unwrap();
    assert!(matches!(Key::load(&path), Err(KeyError::TooLong { .. })));
    let locked = seeded(1)
        .private
        .encrypt(&mut test_rng(), "secret")
        .unwrap();
    fs::write(&path, locked.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
    assert!(matches!(Key::load(&path), Err(KeyError::Encrypted { .. })));
    let ecdsa = Algorithm::new("ecdsa-sha2-nistp256").unwrap();
    let other = PrivateKey::random(&mut test_rng(), ecdsa).unwrap();
    fs::write(&path, other.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
    assert!(matches!(Key::load(&path), Err(KeyError::Algorithm { .. })));
}

#[test]
fn an_encrypted_key_is_opened_by_its_passphrase_and_by_no_other() {
    let pass = |text: &str| Passphrase::new(text.as_bytes().to_vec().into()).unwrap();
    let dir = private_dir();
    let path = dir.path().join("node");
    let mut rng = test_rng();
    let (right, wrong) = (pass("open sesame"), pass("open Sesame"));
    let key = seeded(1);
    key.create_with(&path, Some(&right), &mut rng).unwrap();
    let (opened, protection) = Key::load_with(&path, Some(&right)).unwrap();
    assert_eq!(
        (opened.public_key(), protection),
        (key.public_key(), Protection::Passphrase)
    );
    let error = Key::load_with(&path, Some(&wrong)).unwrap_err();
    assert!(matches!(error, KeyError::Passphrase { .. }), "{error}");
    assert!(!error.to_string().contains("esame"), "{error}");
    let error = Key::load(&path).unwrap_err();
    assert!(matches!(error, KeyError::Encrypted { .. }), "{error}");
    let (public, protection) = Key::public_half(&path).unwrap();
    assert_eq!(public.key_data(), key.public_key().key_data());
    assert_eq!(protection, Protection::Passphrase);
    assert_eq!(mode(&path), 0o600);
    // One that is in clear is opened with a passphrase as well, and said to be in clear.
    let plain = dir.path().join("host");
    seeded(2).create_new(&plain).unwrap();
    let (_, protection) = Key::load_with(&plain, Some(&right)).unwrap();
    assert_eq!(protection, Protection::Plain);
}

#[test]
fn a_second_start_finds_the_key_of_the_first_and_mends_its_public_file() {
    let dir = private_dir();
    let path = dir.path().join("host_key");
    let (first, origin) = Key::load_or_create(&path, "host", &mut test_rng()).unwrap();
    assert_eq!(origin, Origin::Created);
    for damage in [
        None,
        Some("rubbish"),
        Some(seeded(9).public_key().to_openssh().unwrap().as_str()),
    ] {
        match damage {
            None => fs::remove_file(public_path(&path)).unwrap(),
            Some(text) => fs::write(public_path(&path), text).unwrap(),
        }
        let (again, origin) = Key::load_or_create(&path, "other", &mut test_rng()).unwrap();
        assert_eq!(
            (again.public_key(), origin),
            (first.public_key(), Origin::Loaded)
        );
        let public = fs::read_to_string(public_path(&path)).unwrap();
        assert_eq!(
            PublicKey::from_openssh(&public).unwrap(),
            *first.public_key()
        );
    }
}

#[test]
fn a_broken_key_is_reported_and_not_replaced() {
    let dir = private_dir();
    let path = dir.path().join("node");
    write_synced(&path, b"", Mode::Private).unwrap();
    assert!(matches!(
        Key::load_or_create(&path, "", &mut test_rng()),
        Err(KeyError::Malformed { .. })
    ));
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn debug_shows_the_fingerprint_and_no_key_material() {
    let key = seeded(0x5a);
    let shown = format!("{key:?} {:?}", NodeCa::new(Key::from_seed("", &[0x5a; 32])));
    assert!(shown.contains(&key.fingerprint().to_string()));
    assert!(
        !shown.contains("5a5a") && !shown.contains("90, 90"),
        "{shown}"
    );
}

#[test]
fn a_comment_cannot_add_a_line_to_the_public_file() {
    let key = Key::from_seed("a\nssh-ed25519 AAAA\r\u{1b}[2Jb", &[1; 32]);
    let line = public_line(key.public_key(), Path::new("k")).unwrap();
    assert_eq!(line.lines().count(), 1);
    assert!(!line.contains('\u{1b}'));
}

#[test]
fn a_new_directory_has_mode_0700_and_a_wider_one_is_refused() {
    let dir = private_dir();
    let made = dir.path().join("a/ca");
    create_directory(&made).unwrap();
    assert_eq!(mode(&made), 0o700);
    create_directory(&made).unwrap();
    fs::set_permissions(&made, Permissions::from_mode(0o711)).unwrap();
    assert!(matches!(
        create_directory(&made),
        Err(KeyError::DirectoryTooWide { .. })
    ));
}
