//! A tournament of packed keys: who is least, when only the least one is ever replaced.
//!
//! The tree of losers of Knuth, *The Art of Computer Programming* vol. 3, §5.4.1: each inner node holds the loser of the
//! match played there, the winner stands above them all. A new key in the winner's place replays the matches on its own way
//! up, and that way is known before the first comparison, so the processor fetches all of it at once; in a heap each
//! level's address waits for the comparison before.

/// Bits of a key that name its player.
pub const PLAYER_BITS: u32 = 20;

/// Players at most.
pub const PLAYERS_MAX: usize = 1 << PLAYER_BITS;

const PLAYER_MASK: u64 = (1 << PLAYER_BITS) - 1;

/// Keys of a fixed number of players: what counts above, the player's number in the low [`PLAYER_BITS`].
#[derive(Clone, Debug)]
pub struct Tournament {
    /// Losers at 1.., the winner at 0; a power of two.
    nodes: Vec<u64>,
    players: usize,
}

impl Tournament {
    /// `players` (1..=[`PLAYERS_MAX`]) players whose keys count zero.
    pub fn new(players: usize) -> Self {
        assert!((1..=PLAYERS_MAX).contains(&players), "a tournament has players, and numbers for them");
        let mut tournament = Self { nodes: vec![0; players.next_power_of_two()], players };
        tournament.seat(&(0..players as u64).collect::<Vec<u64>>());
        tournament
    }

    /// The least key.
    #[inline(always)]
    pub fn first(&self) -> u64 {
        self.nodes[0]
    }

    /// The player that a key names.
    #[inline(always)]
    pub fn player(key: u64) -> usize {
        (key & PLAYER_MASK) as usize
    }

    /// What a key counts.
    #[inline(always)]
    pub fn count(key: u64) -> u64 {
        key >> PLAYER_BITS
    }

    /// Lets the player with the least key count `count` (below 2^44) from now on.
    #[inline(always)]
    pub fn replace_first(&mut self, count: u64) {
        let nodes = self.nodes.as_mut_slice();
        let player = Self::player(nodes[0]);
        let mut winner = count << PLAYER_BITS | player as u64;
        let mut at = (nodes.len() + player) >> 1;
        debug_assert!(player < nodes.len(), "keys name players");
        while at > 0 {
            // SAFETY: players number below the count of nodes, so half of a leaf's place is below it, and it only halves.
            let node = unsafe { nodes.get_unchecked_mut(at) };
            let (less, more) = if *node < winner { (*node, winner) } else { (winner, *node) };
            *node = more;
            winner = less;
            at >>= 1;
        }
        nodes[0] = winner;
    }

    /// Every player's key, least first.
    pub fn ranking(&self) -> Vec<u64> {
        let mut keys: Vec<u64> = self.nodes.iter().copied().filter(|key| *key != u64::MAX).collect();
        keys.sort_unstable();
        keys
    }

    /// Gives every player a new key; `keys` names each once.
    pub fn seat(&mut self, keys: &[u64]) {
        assert_eq!(keys.len(), self.players, "each player has one key");
        let leaves = self.nodes.len();
        // Winners of the matches below each node; absent players lose to all.
        let mut winners = vec![u64::MAX; 2 * leaves];
        for key in keys {
            winners[leaves + Self::player(*key)] = *key;
        }
        for node in (1..leaves).rev() {
            let (left, right) = (winners[2 * node], winners[2 * node + 1]);
            winners[node] = left.min(right);
            self.nodes[node] = left.max(right);
        }
        self.nodes[0] = winners[1];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::units::random::Stream;

    #[test]
    fn agrees_with_a_sorted_list() {
        for players in [1, 2, 3, 7, 64, 100, 1000] {
            let stream = Stream::new(1, players as u64, "keys");
            let mut tournament = Tournament::new(players);
            let mut list: Vec<u64> = (0..players as u64).collect();
            for step in 0..20_000 {
                let first = tournament.first();
                assert_eq!(Some(&first), list.first(), "{players} players, step {step}");
                let count = Tournament::count(first) + stream.below(step, 50);
                tournament.replace_first(count);
                list.remove(0);
                let key = count << PLAYER_BITS | Tournament::player(first) as u64;
                list.insert(list.partition_point(|other| *other < key), key);
                if step % 5000 == 4999 {
                    assert_eq!(tournament.ranking(), list);
                    tournament.seat(&list);
                }
            }
        }
    }
}
