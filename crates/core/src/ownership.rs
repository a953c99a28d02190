//! Which member of a group owns which partition: rendezvous hashing (Thaler, Ravishankar 1998), with a bound on each
//! member's load.
//!
//! Every pair of a partition and a member has a score that everybody computes alike. The pairs are taken from the highest
//! score down; a partition goes to the first member that still has room. Each member gets ⌊P/N⌋ or ⌈P/N⌉ partitions, and
//! the same view gives the same answer wherever it is computed.
//!
//! Rejected: strictly fewest moves, which needs the history of the group and not only its view (a replay of joins in the
//! order of their ids moves the fewest at a join, and twice as many where an early member leaves).

use crate::{Partition, Uid, port::Member};

/// The member that owns each partition, as an index into `members`, in the order of partitions; empty without members.
pub fn assign(members: &[Member], partitions: u16) -> Vec<usize> {
    if members.is_empty() {
        return Vec::new();
    }
    let mut scores: Vec<(u128, u16, usize)> = members
        .iter()
        .enumerate()
        .flat_map(|(index, member)| (0..partitions).map(move |partition| (member, partition, index)))
        .map(|(member, partition, index)| (score(member, partition), partition, index))
        .collect();
    // Two members with one score: the lower id first, in whatever order the view names them.
    scores.sort_unstable_by_key(|(score, partition, index)| {
        (std::cmp::Reverse(*score), *partition, members.get(*index).map(|member| member.id))
    });
    let least = usize::from(partitions) / members.len();
    let mut with_one_more = usize::from(partitions) % members.len();
    let mut loads = vec![0_usize; members.len()];
    let mut owners = vec![None; usize::from(partitions)];
    for (_, partition, index) in scores {
        let (Some(load), Some(owner)) = (loads.get_mut(index), owners.get_mut(usize::from(partition))) else {
            continue;
        };
        let has_room = *load < least || (*load == least && with_one_more > 0);
        if owner.is_none() && has_room {
            with_one_more -= usize::from(*load == least);
            *load += 1;
            *owner = Some(index);
        }
    }
    // Together the members have room for exactly all partitions, so none is left over.
    owners.into_iter().map(Option::unwrap_or_default).collect()
}

/// The partitions of one member; none where it is not among `members`.
pub fn owned_by(me: Uid, members: &[Member], partitions: u16) -> Vec<Partition> {
    let Some(mine) = members.iter().position(|member| member.id == me) else { return Vec::new() };
    let owners = (0..).map(Partition).zip(assign(members, partitions));
    owners.filter(|(_, owner)| *owner == mine).map(|(partition, _)| partition).collect()
}

fn score(member: &Member, partition: u16) -> u128 {
    Uid::hash(&[&member.id.to_bytes(), &partition.to_be_bytes()]).as_u128()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn members(ids: impl IntoIterator<Item = u128>) -> Vec<Member> {
        let member = |id| Member { id: Uid::from_u128(id), name: String::new() };
        ids.into_iter().map(member).collect()
    }

    /// The owner's id of each partition.
    fn owners(members: &[Member], partitions: u16) -> Vec<Uid> {
        assign(members, partitions).into_iter().map(|index| members[index].id).collect()
    }

    proptest! {
        #[test]
        fn every_partition_has_one_owner_and_no_member_more_than_one_more_than_another(
            ids in prop::collection::btree_set(any::<u128>(), 1..12),
            partitions in 0_u16..70,
        ) {
            let members = members(ids);
            let owners = owners(&members, partitions);
            prop_assert_eq!(owners.len(), usize::from(partitions));
            let mut loads: BTreeMap<Uid, usize> = members.iter().map(|member| (member.id, 0)).collect();
            owners.iter().for_each(|owner| *loads.get_mut(owner).unwrap() += 1);
            let (least, most) = (loads.values().min().unwrap(), loads.values().max().unwrap());
            prop_assert!(most - least <= 1, "{loads:?}");
            let each: usize = members.iter().map(|member| owned_by(member.id, &members, partitions).len()).sum();
            prop_assert_eq!(each, usize::from(partitions));
        }

        #[test]
        fn the_order_of_a_view_and_the_names_in_it_do_not_matter(
            ids in prop::collection::vec(any::<u128>(), 1..8),
            partitions in 1_u16..40,
        ) {
            let mut view = members(ids.into_iter().collect::<std::collections::BTreeSet<_>>());
            let owners_before = owners(&view, partitions);
            view.reverse();
            view.iter_mut().for_each(|member| member.name = "another".to_owned());
            prop_assert_eq!(owners(&view, partitions), owners_before);
        }
    }

    #[test]
    fn nobody_owns_anything_without_members_nor_outside_the_view() {
        assert_eq!(assign(&[], 16), Vec::<usize>::new());
        assert_eq!(owned_by(Uid::from_u128(9), &members([1, 2]), 16), []);
        assert_eq!(owned_by(Uid::from_u128(1), &members([1]), 3), [0, 1, 2].map(Partition));
    }

    #[test]
    fn a_join_or_a_leave_moves_little_more_than_it_must() {
        let (mut moved, mut needed) = (0, 0);
        for seed in 0..40_u128 {
            let id = |n: u128| Uid::hash(&[&seed.to_be_bytes(), &n.to_be_bytes()]).as_u128();
            for count in 1..8_u128 {
                let fewer = owners(&members((0..count).map(id)), 64);
                let more = owners(&members((0..=count).map(id)), 64);
                moved += fewer.iter().zip(&more).filter(|(before, after)| before != after).count();
                needed += more.iter().filter(|owner| **owner == Uid::from_u128(id(count))).count();
            }
        }
        // Seen from the other side each of these joins is a leave.
        assert!(moved * 10 <= needed * 14, "{moved} partitions moved where {needed} had to");
    }
}
