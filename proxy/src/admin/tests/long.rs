//! Listings of very many rows, and clients that read them slowly.

use tokio::sync::Semaphore;

use super::*;

const NODES: usize = 3000;

/// A client that takes a piece of an answer when it is told to, and counts them.
struct Slow {
    may_take: Arc<Semaphore>,
    pieces: Vec<Bytes>,
}

impl CommandIo for Slow {
    async fn stdout(&mut self, text: Bytes) -> Result<(), Gone> {
        self.may_take.acquire().await.map_err(|_| Gone)?.forget();
        self.pieces.push(text);
        Ok(())
    }

    async fn stderr(&mut self, _: Bytes) -> Result<(), Gone> {
        Ok(())
    }

    async fn read_stdin(&mut self, _: usize) -> Result<Vec<u8>, StdinError> {
        Ok(Vec::new())
    }

    fn file(&mut self, _: &str) -> FileAnswer {
        FileAnswer::OutOfReach
    }

    fn terminal(&self) -> Option<TerminalSize> {
        None
    }

    async fn read_line(&mut self, _: &str) -> Typed {
        Typed::End
    }

    async fn agent(&mut self) -> Result<AgentStream, NoAgent> {
        Err(NoAgent::NotForwarded)
    }

    async fn gone(&mut self) -> Leave {
        std::future::pending().await
    }
}

/// With many more nodes than a piece of an answer holds.
async fn large() -> World {
    let world = world().await;
    let labels = [("env", "dev"), ("about", "something of some length")];
    let nodes = (0..NODES).map(|n| {
        let id = format!("00000000-0000-4000-8000-{n:012}");
        node(&format!("node-{n:04}"), &id, &labels)
    });
    let by = crate::state::By::local_administrator();
    let stored = world.ctx.state.put(&by, nodes.collect(), Existing::Refuse);
    stored.await.unwrap();
    world
}

fn long_listings() -> [(&'static str, &'static str); 8] {
    [
        ("carol", "ls"),
        ("carol", "ls --format json"),
        ("alice", "request search --kind node -v"),
        ("alice", "request search --kind node --format yaml"),
        ("ctl", "nodes ls"),
        ("ctl", "get node --format text"),
        ("ctl", "get node"),
        ("ctl", "get all --format json"),
    ]
}

#[tokio::test]
async fn a_listing_arrives_in_pieces_of_a_packet_and_every_row_once() {
    let world = large().await;
    for (who, line) in long_listings() {
        let mut client = Slow {
            may_take: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            pieces: Vec::new(),
        };
        let command = CommandLine::from_exec(line.as_bytes()).unwrap();
        let exit = run(&world.ctx, caller(who), command, &mut client).await;
        assert_eq!(exit, Exit::Done, "{line}");
        let longest = client.pieces.iter().map(Bytes::len).max().unwrap();
        assert!(longest < 34 * 1024, "{line}: {longest}");
        assert!(client.pieces.len() > 4, "{line}");
        let text = String::from_utf8(client.pieces.concat()).unwrap();
        assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{line}");
        if line.contains("json") {
            let rows: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
            assert!(rows.len() >= NODES + 2, "{line}");
        }
        for n in [0, NODES / 2, NODES - 1] {
            let id = format!("00000000-0000-4000-8000-{n:012}");
            let name = format!("node-{n:04}");
            let found = text.matches(&name).count().max(text.matches(&id).count());
            assert!((1..=3).contains(&found), "{line}: {name}: {found}");
        }
    }
}

#[tokio::test]
async fn who_reads_slowly_holds_up_nobody_and_gets_what_there_was() {
    let world = large().await;
    let may_take = Arc::new(Semaphore::new(1));
    let ctx = world.ctx.clone();
    let slow = Slow {
        may_take: Arc::clone(&may_take),
        pieces: Vec::new(),
    };
    let listing = tokio::spawn(async move {
        let mut slow = slow;
        let line = CommandLine::from_exec(b"ls").unwrap();
        let exit = run(&ctx, caller("carol"), line, &mut slow).await;
        (exit, slow.pieces)
    });
    while may_take.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    // Its first piece is out and the rest waits; meanwhile others read and write.
    let removed = world.says("ctl", "nodes rm node-2999").await;
    assert_eq!(removed.code, 0, "{removed:?}");
    let other = world.says("carol", "ls --search node-29").await;
    assert!(!other.out.contains("node-2999") && other.out.contains("node-2998"));
    assert!(!listing.is_finished());
    may_take.add_permits(1000);
    let (exit, pieces) = listing.await.unwrap();
    assert_eq!(exit, Exit::Done);
    let text = String::from_utf8(pieces.concat()).unwrap();
    assert!(text.contains("node-2999"), "as it was when it was asked");
}

#[tokio::test]
async fn who_leaves_in_the_middle_of_a_listing_ends_it() {
    let world = large().await;
    let mut client = Slow {
        may_take: Arc::new(Semaphore::new(2)),
        pieces: Vec::new(),
    };
    let may_take = Arc::clone(&client.may_take);
    let line = CommandLine::from_exec(b"ls").unwrap();
    let listing = run(&world.ctx, caller("carol"), line, &mut client);
    let leaving = async {
        while may_take.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        may_take.close();
    };
    let (exit, ()) = tokio::join!(listing, leaving);
    assert_eq!((exit, client.pieces.len()), (Exit::Failed, 2));
}
