//! A registry that accepts connections and never answers, so that a pull from it does not end.

use crate::command::Command;
use crate::lab::Lab;

/// A server that accepts connections, and records each one in a file.
const TAKE: &str = "perl -MIO::Socket::INET -e '
    my $listener = IO::Socket::INET->new(LocalAddr => q(127.0.0.1:PORT), Listen => 9, ReuseAddr => 1) or die;
    my @taken;
    while (push @taken, $listener->accept) { open my $file, q(>), q(/run/silent.PORT.asked) }'";

/// Such a registry on a node, for the engine of this node.
pub struct SilentRegistry<'a> {
    lab: &'a Lab,
    node: &'a str,
    port: u16,
}

impl<'a> SilentRegistry<'a> {
    /// Starts it.
    #[track_caller]
    pub fn start(lab: &'a Lab, node: &'a str, port: u16) -> Self {
        let registry = Self { lab, node, port };
        lab.repair_with(registry.end());
        let take = TAKE.replace("PORT", &port.to_string());
        lab.node(node).sh(&format!("{take} >/dev/null 2>&1 & echo $! >/run/silent.{port}")).success();
        registry
    }

    /// The name of an image in it.
    pub fn image(&self) -> String {
        format!("localhost:{}/x", self.port)
    }

    /// Waits until the engine has asked.
    #[track_caller]
    pub fn wait_until_asked(&self) {
        let asked = format!("test -e /run/silent.{}.asked", self.port);
        let asked = self.lab.poll(|| (self.lab.node(self.node).run(&asked).code == Some(0)).then_some(()));
        assert!(asked.is_some(), "nobody asked the registry");
    }

    /// Ends it.
    #[track_caller]
    pub fn stop(self) {
        self.end().run().success();
    }

    fn end(&self) -> Command {
        let files = format!("/run/silent.{}", self.port);
        self.lab.node(self.node).command("").sh(&format!("kill $(cat {files}); rm -f {files} {files}.asked"))
    }
}
