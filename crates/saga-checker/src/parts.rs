//! The parts of a workflow that are walked one after the other, if the members of a group are too many for one walk.
//!
//! The states of a group grow with the product of what its members can be in: two members have some ten thousand states within the
//! bounds of a deployment, three have more than a million. So a group of three or more members is walked with each pair of its
//! members, and the other members left out. What a member does to another one shows in a pair: one is rejected, or misses its
//! deadline, while the other is done, may have run, or replies late. Pairs that the model cannot distinguish are walked once.

use super::abstraction::AbstractWorkflow;
use saga_core::{Definition, Step};

/// Most members of a group that are walked together.
const MAX_MEMBERS_TOGETHER: usize = 2;

/// A workflow with some of the members of its groups.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) definition: Definition,
    /// The members that are in the walk; empty if no member is left out.
    pub(super) members: Vec<String>,
}

/// The workflow as a whole, or with each pair of members of its large groups.
pub(super) fn parts(definition: &Definition) -> Vec<Part> {
    let groups: Vec<Vec<[usize; 2]>> =
        large_groups(definition).map(|group| pairs(definition, &group)).collect();
    let count = groups.iter().map(Vec::len).max().unwrap_or(0);
    if count == 0 {
        return vec![Part { definition: definition.clone(), members: Vec::new() }];
    }
    let large: Vec<usize> = large_groups(definition).flatten().collect();
    let part = |number: usize| {
        let kept: Vec<usize> = groups.iter().flat_map(|pairs| pairs[number % pairs.len()]).collect();
        let mut part = definition.clone();
        part.steps.clear();
        let steps = definition.steps.iter().enumerate();
        let steps = steps.filter(|(index, _)| !large.contains(index) || kept.contains(index));
        part.steps.extend(steps.map(|(_, step)| step.clone()));
        let members = kept.iter().map(|index| definition.steps[*index].name.clone()).collect();
        Part { definition: part, members }
    };
    (0..count).map(part).collect()
}

/// The positions of the members of each group that is too large for one walk.
fn large_groups(definition: &Definition) -> impl Iterator<Item = Vec<usize>> {
    let starts = (0..definition.steps.len()).filter_map(|index| {
        let group = definition.group(index)?;
        (group.start == index).then(|| group.collect::<Vec<usize>>())
    });
    starts.filter(|group| group.len() > MAX_MEMBERS_TOGETHER)
}

/// The pairs of members, those that the model cannot distinguish once.
fn pairs(definition: &Definition, group: &[usize]) -> Vec<[usize; 2]> {
    let shapes = AbstractWorkflow::of(definition).definition.steps.into_iter().map(shape).collect::<Vec<_>>();
    let mut pairs: Vec<[usize; 2]> = Vec::new();
    for (at, one) in group.iter().enumerate() {
        for other in &group[at + 1..] {
            let is_alike =
                |known: &[usize; 2]| shapes[known[0]] == shapes[*one] && shapes[known[1]] == shapes[*other];
            if !pairs.iter().any(is_alike) {
                pairs.push([*one, *other]);
            }
        }
    }
    pairs
}

/// What the model sees of a step.
fn shape(mut step: Step) -> Step {
    step.name.clear();
    for name in [&mut step.command, &mut step.undo].into_iter().flatten() {
        name.clear();
    }
    step.emits.clear();
    step.announces.clear();
    step.undo_announces.clear();
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts_of(members: &[&str]) -> Vec<Vec<String>> {
        let members: Vec<String> = members.iter().map(|member| format!("{{ {member} }}")).collect();
        let group = format!("[[steps]]\nname='g'\nparallel=[{}]\n", members.join(", "));
        let text = format!("name='t'\nversion=1\n{group}[[steps]]\nname='end'\ncommand='x.end'");
        let definition = Definition::parse("t", &text).unwrap();
        let parts = parts(&definition);
        assert!(parts.iter().all(|part| part.definition.steps.len() <= 3));
        parts.into_iter().map(|part| part.members).collect()
    }

    const A: &str = "name='a', command='x.a', undo='x.ua'";
    const B: &str = "name='b', command='x.b', undo='x.ub', emits=['b.done']";
    const C: &str = "name='c', command='x.c', undo='x.uc'";
    const NO_UNDO: &str = "name='n', command='x.n'";

    #[test]
    fn group_of_two_is_walked_as_a_whole() {
        assert_eq!(parts_of(&[A, B]), [Vec::<String>::new()]);
    }

    #[test]
    fn larger_group_is_walked_pair_by_pair() {
        assert_eq!(parts_of(&[A, B, C]), [["a", "b"]], "all are alike");
        assert_eq!(parts_of(&[A, B, NO_UNDO, C]), [["a", "b"], ["a", "n"], ["n", "c"]]);
    }
}
