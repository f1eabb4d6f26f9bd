//! Types that contain themselves.

use super::{Body, DEPTH, Named, Parsed, Type, VariantKind};

/// Names of a cycle that an error shows. Those in the middle are left out.
const SHOWN: usize = 8;

/// Checks that no type is a choice, or another name, of itself, and that each type has values. A
/// type may have itself as an item of a list, as a value of a map, and as a field that can be left
/// out.
///
/// # Errors
/// A type contains itself, or stands for others that are nested too deep.
pub(super) fn check(types: &[Named]) -> Parsed<()> {
    let alternatives: Vec<_> = types.iter().map(alternatives).collect();
    let mut heights = vec![None; types.len()];
    for index in 0..types.len() {
        height(index, types, &alternatives, &mut heights, &mut Vec::new())?;
    }
    check_values(types)
}

/// The error of a cycle, whose first name comes again after the last.
pub(super) fn error<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<_> = names.into_iter().collect();
    let first = names.first().copied().unwrap_or_default();
    if names.len() > SHOWN {
        names.splice(SHOWN / 2..names.len() - SHOWN / 2, ["…"]);
    }
    format!(
        "the type {first} contains itself: {} -> {first}; put it into a list, a map or a field that \
         can be left out",
        names.join(" -> ")
    )
}

fn error_of(cycle: &[usize], types: &[Named]) -> String {
    error(cycle.iter().map(|index| types[*index].described.as_str()))
}

/// Named types whose values are values of this one as they are.
fn alternatives(named: &Named) -> Vec<usize> {
    let kinds: Vec<&Type> = match &named.body {
        Body::Alias(kind) => vec![kind],
        Body::Union(variants) => variants
            .iter()
            .filter_map(|variant| match &variant.kind {
                VariantKind::Other(kind) => Some(kind),
                VariantKind::Constant(_) | VariantKind::Tagged(..) | VariantKind::Internal(..) => {
                    None
                }
            })
            .collect(),
        Body::Struct(_) | Body::Enum(_) => Vec::new(),
    };
    let index = |mut kind: &Type| {
        while let Type::Nullable(inner) = kind {
            kind = inner;
        }
        if let Type::Named(index) = kind { Some(*index) } else { None }
    };
    kinds.into_iter().filter_map(index).collect()
}

/// Length of the longest way down from a type to one without alternatives. `way` are the types above.
fn height(
    index: usize,
    types: &[Named],
    alternatives: &[Vec<usize>],
    heights: &mut [Option<usize>],
    way: &mut Vec<usize>,
) -> Parsed<usize> {
    if let Some(first) = way.iter().position(|it| *it == index) {
        return Err(error_of(&way[first..], types));
    }
    let below = match heights[index] {
        Some(known) => known,
        // The recursion ends: no way is longer than this.
        None if way.len() > DEPTH => way.len(),
        None => {
            way.push(index);
            let mut highest = 0;
            for next in &alternatives[index] {
                highest = highest.max(1 + height(*next, types, alternatives, heights, way)?);
            }
            way.pop();
            highest
        }
    };
    if way.len() + below > DEPTH {
        return Err(format!(
            "the type {} stands for a type that stands for another, and so on, more than {DEPTH} \
             times",
            types[*way.first().unwrap_or(&index)].described
        ));
    }
    heights[index] = Some(below);
    Ok(below)
}

/// Checks that a value of each type can end: it does not need another of the same type for ever.
fn check_values(types: &[Named]) -> Parsed<()> {
    let needs: Vec<_> = types.iter().map(needs).collect();
    endless(&needs).map_or(Ok(()), |cycle| Err(error_of(&cycle, types)))
}

/// Finds a cycle of things that cannot end. Each has ways to end, and the others that a way needs.
pub(in super::super) fn endless(needs: &[Vec<Vec<usize>>]) -> Option<Vec<usize>> {
    let mut users = vec![Vec::new(); needs.len()];
    for (index, ways) in needs.iter().enumerate() {
        ways.iter().flatten().for_each(|needed| users[*needed].push(index));
    }
    let mut can_end = vec![false; needs.len()];
    let mut queue: Vec<_> = (0..needs.len()).collect();
    while let Some(index) = queue.pop() {
        let is_possible = |way: &Vec<usize>| way.iter().all(|needed| can_end[*needed]);
        if !can_end[index] && needs[index].iter().any(is_possible) {
            can_end[index] = true;
            queue.extend(&users[index]);
        }
    }
    // Each that cannot end needs another one.
    let next = |index: usize| {
        if can_end[index] {
            return None;
        }
        needs[index].iter().flatten().copied().find(|needed| !can_end[*needed])
    };
    let start = (0..needs.len()).find(|index| !can_end[*index])?;
    let mut places = vec![None; needs.len()];
    let mut way = Vec::new();
    let mut at = Some(start);
    while let Some(index) = at {
        if let Some(first) = places[index] {
            return Some(way.split_off(first));
        }
        places[index] = Some(way.len());
        way.push(index);
        at = next(index);
    }
    None
}

/// Ways to make a value, each with the types of which it needs a value.
fn needs(named: &Named) -> Vec<Vec<usize>> {
    fn add(kind: &Type, to: &mut Vec<usize>) {
        match kind {
            Type::Named(index) => to.push(*index),
            Type::Tuple(kinds) => kinds.iter().for_each(|kind| add(kind, to)),
            // Null, an empty list and an empty map need no other value.
            Type::Nullable(_) | Type::List(_) | Type::Map(_) => {}
            Type::Any
            | Type::Null
            | Type::Bool
            | Type::Integer(_)
            | Type::Float
            | Type::String
            | Type::Constants(_) => {}
        }
    }
    let all = |kinds: &mut dyn Iterator<Item = &Type>| {
        let mut needed = Vec::new();
        kinds.for_each(|kind| add(kind, &mut needed));
        needed
    };
    match &named.body {
        Body::Alias(kind) => vec![all(&mut std::iter::once(kind))],
        Body::Struct(fields) => {
            vec![all(&mut fields.iter().filter(|it| it.required).map(|it| &it.kind))]
        }
        Body::Union(variants) if !variants.is_empty() => variants
            .iter()
            .map(|variant| match &variant.kind {
                VariantKind::Constant(_) => Vec::new(),
                VariantKind::Tagged(_, kind)
                | VariantKind::Internal(_, _, kind)
                | VariantKind::Other(kind) => all(&mut std::iter::once(kind)),
            })
            .collect(),
        Body::Union(_) | Body::Enum(_) => vec![Vec::new()],
    }
}
