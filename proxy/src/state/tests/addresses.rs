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
    let gateway: IpAddr = HERE.parse().unwrap();
    world.state.addresses().name([gateway]);
    assert!(world.is_refused_from(HERE).await);
    assert!(world.is_refused_from(&format!("::ffff:{HERE}")).await);
    world.state.addresses().name([]);
    assert!(!world.is_refused_from(HERE).await);
}

#[tokio::test]
async fn what_people_share_by_the_operators_word_wins_over_nodes_but_not_over_his_word_on_nodes() {
    let world = world().await;
    world.by_name(HERE).await;
    assert!(world.is_refused_from(HERE).await);
    let here: IpAddr = HERE.parse().unwrap();
    world.state.addresses().share([here]);
    assert!(!world.is_refused_from(HERE).await);
    world.by_name("198.51.100.10").await;
    assert!(world.is_refused_from("198.51.100.10").await);
    world.state.addresses().name([here]);
    assert!(world.is_refused_from(HERE).await);
}
