//! Reviews from where a node is, however it was registered.

use std::net::IpAddr;

use super::*;

const HERE: &str = "198.51.100.9";

impl World {
    async fn by_name(&self, host: &str) -> NodeId {
        let there = Node {
            addr: name(&format!("{host}:22")),
            ..node("hostile")
        };
        let id = there.id;
        let put = vec![Object::Node(there)];
        self.state
            .put(&admin(), put, Existing::Refuse)
            .await
            .unwrap();
        id
    }

    fn means(&self, host: &str, ip: &str) {
        let ip: IpAddr = ip.parse().unwrap();
        let now = self.state.now();
        self.state.addresses().seen(host, [ip], now);
    }

    /// Whether a review from there is refused because a node is there.
    async fn is_refused_from(&self, ip: &str) -> bool {
        // What was refused before left its request pending.
        let alice = me("alice");
        let filed = self.state.file(&alice, self.wanted("root"));
        let id = match filed.await.unwrap() {
            Filed::New(new) => new.request.id,
            Filed::Joined(id) | Filed::Covered(id) => id,
        };
        let from = SocketAddr::new(ip.parse().unwrap(), 40000);
        let bob = me("bob");
        let review = self.state.review(&bob, id, Verdict::Deny, "", Some(from));
        match review.await {
            Ok(_) => false,
            Err(ReviewError::FromNode(refused)) => {
                assert!(self.state.not_from_a_node(from).is_err());
                assert!(matches!(refused, FromNode::Registered { .. }));
                true
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_review_from_where_a_node_is_by_its_name_is_refused() {
    let world = world().await;
    let id = world.by_name("hostile.example").await;
    assert!(!world.is_refused_from(HERE).await, "nobody knows yet");
    world.means("hostile.example", HERE);
    assert!(world.is_refused_from(HERE).await);
    assert!(world.is_refused_from(&format!("::ffff:{HERE}")).await);
    assert!(!world.is_refused_from("198.51.100.10").await);
    // It means several by turns, as a machine with two interfaces.
    world.means("hostile.example", "2001:db8::9");
    world.means("hostile.example", "::ffff:198.51.100.11");
    for ip in [HERE, "2001:db8::9", "198.51.100.11"] {
        assert!(world.is_refused_from(ip).await, "{ip}");
    }
    // Loopback is everybody's.
    world.means("hostile.example", "127.0.0.1");
    assert!(!world.is_refused_from("127.0.0.1").await);
    let ids = vec![ObjectId::Node(id)];
    world.state.remove(&admin(), ids).await.unwrap();
    assert!(!world.is_refused_from(HERE).await, "the node is gone");
}

#[tokio::test]
async fn an_address_that_the_name_means_no_more_counts_for_a_day() {
    let world = world().await;
    world.by_name("hostile.example").await;
    world.means("hostile.example", HERE);
    world.clock.advance(Duration::hours(23));
    world.means("hostile.example", "198.51.100.10");
    assert!(world.is_refused_from(HERE).await);
    world.clock.advance(Duration::hours(2));
    // No answer is no news.
    assert!(world.is_refused_from(HERE).await);
    world.means("hostile.example", "198.51.100.10");
    assert!(!world.is_refused_from(HERE).await);
    assert!(world.is_refused_from("198.51.100.10").await);
    world.state.addresses().retain(|_| false);
    assert!(!world.is_refused_from("198.51.100.10").await);
}

#[tokio::test]
async fn a_name_that_means_everything_fills_no_memory() {
    let world = world().await;
    world.by_name("hostile.example").await;
    for last in 0..200 {
        world.clock.advance(Duration::SECOND);
        world.means("hostile.example", &format!("198.51.100.{last}"));
    }
    assert!(!world.is_refused_from("198.51.100.1").await);
    assert!(world.is_refused_from("198.51.100.199").await);
}

#[tokio::test]
async fn a_review_from_where_the_operator_says_that_nodes_come_from_is_refused() {
    let world = world().await;
    world.state.addresses().name(networks(&[HERE]));
    assert!(world.is_refused_from(HERE).await);
    assert!(world.is_refused_from(&format!("::ffff:{HERE}")).await);
    world.state.addresses().name(Vec::new());
    assert!(!world.is_refused_from(HERE).await);
}

fn networks(texts: &[&str]) -> Vec<ipnet::IpNet> {
    let parse = |text: &&str| {
        let ip = text.parse().map(|ip: IpAddr| ipnet::IpNet::from(ip));
        ip.unwrap_or_else(|_| text.parse().unwrap())
    };
    texts.iter().map(parse).collect()
}

#[tokio::test]
async fn what_people_share_by_the_operators_word_wins_over_nodes_but_not_over_his_word_on_nodes() {
    let world = world().await;
    world.by_name(HERE).await;
    assert!(world.is_refused_from(HERE).await);
    let share = |text| world.state.addresses().share(networks(&[text]));
    share("198.51.100.0/24");
    assert!(
        world.is_refused_from(HERE).await,
        "a network is no word about the one node in it"
    );
    share(HERE);
    assert!(!world.is_refused_from(HERE).await);
    world.by_name("198.51.100.10").await;
    assert!(world.is_refused_from("198.51.100.10").await);
    let nodes = networks(&["198.51.100.0/28"]);
    world.state.addresses().name(nodes);
    assert!(world.is_refused_from(HERE).await);
    assert!(world.is_refused_from("198.51.100.15").await);
    assert!(!world.is_refused_from("198.51.100.16").await);
}

#[tokio::test]
async fn a_node_is_where_any_address_of_its_network_is() {
    let world = world().await;
    world.by_name("[2001:db8:1:2::7]").await;
    for there in ["2001:db8:1:2::7", "2001:db8:1:2:ffff::9"] {
        assert!(world.is_refused_from(there).await, "{there}");
    }
    assert!(!world.is_refused_from("2001:db8:1:3::7").await);
    world.by_name("hostile.example").await;
    world.means("hostile.example", "2001:db8:1:4::7");
    assert!(world.is_refused_from("2001:db8:1:4::8").await);
    let nodes = networks(&["2001:db8:1:5::7"]);
    world.state.addresses().name(nodes);
    assert!(world.is_refused_from("2001:db8:1:5::8").await);
    assert!(!world.is_refused_from("2001:db8:1:6::8").await);
    // Of people one address is one address.
    let people = networks(&["2001:db8:1:2::9"]);
    world.state.addresses().share(people);
    assert!(!world.is_refused_from("2001:db8:1:2::9").await);
    assert!(world.is_refused_from("2001:db8:1:2::a").await);
    // Where they share the network with nodes, these are where they are.
    let people = networks(&["2001:db8:1:2::/64", "2001:db8:1:4::/64"]);
    world.state.addresses().share(people);
    for (there, refused) in [
        ("2001:db8:1:2::a", false),
        ("2001:db8:1:2::7", true),
        ("2001:db8:1:4::8", false),
        ("2001:db8:1:4::7", true),
    ] {
        assert_eq!(world.is_refused_from(there).await, refused, "{there}");
    }
}

#[tokio::test]
async fn from_where_a_tunnel_was_counts_for_a_day_for_each_node_and_after_a_restart() {
    let world = world().await;
    let (state, now) = (&world.state, world.state.now());
    let mut ids = Vec::new();
    for called in ["first", "second"] {
        let there = Node {
            addr: name("tunnel"),
            ..node(called)
        };
        ids.push(there.id);
        let put = vec![Object::Node(there)];
        state.put(&admin(), put, Existing::Refuse).await.unwrap();
    }
    let here: IpAddr = HERE.parse().unwrap();
    let from = SocketAddr::new(here, 40000);
    for id in &ids {
        state.addresses().tunnel_opened(here, *id, now);
    }
    assert!(state.not_from_a_node(from).is_err());
    for id in &ids {
        state.addresses().tunnel_closed(here, *id, now);
    }
    // The one that left last is gone; the other was there as well.
    let gone = vec![ObjectId::Node(ids[1])];
    state.remove(&admin(), gone).await.unwrap();
    assert!(state.not_from_a_node(from).is_err());
    state.close().await;
    let again = open(world.dir.path(), &world.clock).await.unwrap();
    world.clock.advance(Duration::hours(23));
    assert!(again.not_from_a_node(from).is_err());
    world.clock.advance(Duration::hours(2));
    assert!(again.not_from_a_node(from).is_ok());
    again.close().await;
}
