//! The control socket, both ends.

use tokio::net::UnixListener;

use super::*;

struct Socket {
    world: World,
    path: std::path::PathBuf,
    dir: TempDir,
}

async fn socket() -> Socket {
    let world = world().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ctl.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let ctx = world.ctx.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let ctx = ctx.clone();
            tokio::spawn(async move { ctl::serve_connection(&ctx, stream).await });
        }
    });
    Socket { world, path, dir }
}

impl Socket {
    async fn ctl(&self, words: &[&str], stdin: &[u8]) -> Said {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = ctl::client(&self.path, words, stdin, &mut out, &mut err).await;
        Said {
            out: String::from_utf8(out).unwrap(),
            err: String::from_utf8(err).unwrap(),
            code: exit.code(),
        }
    }
}

#[tokio::test]
async fn a_command_over_the_socket_answers_as_the_local_administrator() {
    let socket = socket().await;
    let said = socket.ctl(&["whoami"], b"").await;
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, "the local administrator\n")
    );
    let said = socket.ctl(&["nodes", "show", "nosuch"], b"").await;
    assert_eq!(said.code, 66);
    assert_eq!(
        said.err,
        "ERROR: no such node `nosuch`; `nodes ls` shows all\n"
    );
    let said = socket.ctl(&["nosuch"], b"").await;
    assert_eq!(said.code, 64);
    assert!(
        said.err
            .ends_with("hint: `anteroom ctl help` lists the commands\n"),
        "{said:?}"
    );
    let said = socket.ctl(&["request", "search", "--roles"], b"").await;
    assert_eq!(said.code, 64);
}

#[tokio::test]
async fn the_client_reads_the_files_that_options_name() {
    let socket = socket().await;
    let public = socket.dir.path().join("zoe.pub");
    std::fs::write(&public, key("zoe").to_openssh().unwrap()).unwrap();
    let said = socket
        .ctl(
            &["users", "add", "zoe", "--key", public.to_str().unwrap()],
            b"",
        )
        .await;
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, "user `zoe` created\n"),
        "{said:?}"
    );
    let line = key("yuri").to_openssh().unwrap();
    let said = socket
        .ctl(
            &["users", "update", "zoe", "--add-key", "-"],
            line.as_bytes(),
        )
        .await;
    assert_eq!(said.code, 0, "{said:?}");
    let said = socket
        .ctl(
            &[
                "users",
                "update",
                "zoe",
                "--add-key",
                &key("inline").to_openssh().unwrap(),
            ],
            b"",
        )
        .await;
    assert_eq!(said.code, 0, "{said:?}");
    let view = socket.world.ctx.state.view();
    assert_eq!(view.user(&name("zoe")).unwrap().keys.len(), 3);
    let private = socket.dir.path().join("id");
    std::fs::write(&private, "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n").unwrap();
    let said = socket
        .ctl(
            &["users", "add", "eve", "--key", private.to_str().unwrap()],
            b"",
        )
        .await;
    assert_eq!(said.code, 64);
    assert!(
        said.err.contains("private key") && !said.err.contains("c2VjcmV0"),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named_and_nothing_is_sent() {
    let socket = socket().await;
    let said = socket
        .ctl(&["create", "-f", "/nonexistent.yaml"], b"")
        .await;
    assert_eq!((said.code, said.out.as_str()), (66, ""));
    assert!(
        said.err
            .starts_with("ERROR: cannot read `/nonexistent.yaml`: "),
        "{said:?}"
    );
    let binary = socket.dir.path().join("binary");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    assert_eq!(
        socket
            .ctl(&["create", "-f", binary.to_str().unwrap()], b"")
            .await
            .code,
        64
    );
    let huge = socket.dir.path().join("huge");
    std::fs::write(&huge, vec![b'#'; 5 * 1024 * 1024]).unwrap();
    let said = socket
        .ctl(&["create", "-f", huge.to_str().unwrap()], b"")
        .await;
    assert_eq!(said.code, 64, "{said:?}");
}

#[tokio::test]
async fn output_larger_than_a_frame_arrives_whole() {
    let socket = socket().await;
    for _ in 0..600 {
        socket
            .world
            .ctx
            .state
            .audit(
                Entry::new(Event::Admin)
                    .user("somebody")
                    .reason("r".repeat(200)),
            )
            .await
            .unwrap();
    }
    let over_socket = socket.ctl(&["audit", "ls", "--format", "json"], b"").await;
    assert!(over_socket.out.len() > 128 * 1024);
    let entries: Vec<serde_json::Value> = serde_json::from_str(&over_socket.out).unwrap();
    assert!(entries.len() > 600);
}

#[tokio::test]
async fn without_a_proxy_the_client_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = ctl::client(
        &dir.path().join("ctl.sock"),
        vec!["ls".to_owned()],
        &b""[..],
        &mut out,
        &mut err,
    )
    .await;
    assert_eq!(exit, Exit::Unavailable);
    assert!(
        String::from_utf8(err)
            .unwrap()
            .contains("start it with `anteroom serve`")
    );
}

#[tokio::test]
async fn what_is_no_request_is_refused_by_the_proxy() {
    let world = world().await;
    for (sent, expected) in [
        (&b"GET / HTTP/1.1\n"[..], "cannot be read"),
        (b"{\"words\":[\"ls\"]}\n", "cannot be read"),
        (b"", "cannot be read"),
    ] {
        let (near, far) = tokio::net::UnixStream::pair().unwrap();
        let (_, mut write) = near.into_split();
        tokio::io::AsyncWriteExt::write_all(&mut write, sent)
            .await
            .unwrap();
        drop(write);
        let error = ctl::serve_connection(&world.ctx, far).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}
