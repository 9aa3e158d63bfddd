//! `vmcore list`: the plugins that are linked in.

use crate::args::ListArgs;
use crate::failure::{Exit, Outcome};
use crate::text;
use serde_json::{Value, json};
use vmcore::{Abilities, Class, arch, format, source, wrapper};

pub(crate) fn run(args: &ListArgs) -> Outcome {
    if args.json {
        text::print_json(&as_json())?;
    } else {
        text::print(as_text().as_bytes())?;
    }
    Ok(Exit::Complete)
}

fn abilities(abilities: &Abilities) -> Vec<&'static str> {
    let table = [
        (abilities.classes.contains(&Class::Elf32), "32-bit"),
        (abilities.classes.contains(&Class::Elf64), "64-bit"),
        (abilities.both_endians, "both byte orders"),
        (abilities.paging, "--paging"),
        (abilities.range, "--range"),
        (abilities.streaming, "pipes"),
        (abilities.shares, "--split"),
    ];
    let able = table.into_iter().filter(|(is_able, _)| *is_able).map(|(_, name)| name);
    able.chain(abilities.compressions.iter().map(|compression| compression.name())).collect()
}

fn variants(format: &dyn vmcore::Format) -> Vec<&'static str> {
    format.variants().iter().map(|variant| variant.name).collect()
}

fn as_text() -> String {
    let mut text = String::from("architectures\n");
    for arch in arch::all() {
        let (registers, notes) =
            (arch.registers().rows.len(), arch.notes().iter().map(|table| table.name).collect::<Vec<_>>());
        text += &format!(
            "  {:<10} ELF machine {}, {registers} registers, notes {}\n",
            arch.name(),
            arch.elf_machine(),
            notes.join(" ")
        );
    }
    text += "formats\n";
    for format in format::all() {
        text += &format!(
            "  {:<10} {}: {}\n",
            format.name(),
            format.description(),
            abilities(&format.abilities()).join(", ")
        );
    }
    text += "wrappers\n";
    for wrapper in wrapper::all() {
        text += &format!("  {:<10} {}\n", wrapper.name(), wrapper.description());
    }
    text += "sources\n";
    for source in source::all() {
        text += &format!("  {:<10} {} ({})\n", source.scheme(), source.description(), source.syntax());
    }
    text
}

fn as_json() -> Value {
    let arch = |arch: &&dyn vmcore::Arch| {
        let notes: Vec<Value> = arch
            .notes()
            .iter()
            .map(|table| json!({ "owner": table.owner, "type": table.note_type, "name": table.name }))
            .collect();
        json!({ "name": arch.name(), "elf_machine": arch.elf_machine(), "registers": arch.registers().rows.len(), "notes": notes })
    };
    let format = |format: &&dyn vmcore::Format| json!({ "name": format.name(), "variants": variants(*format), "description": format.description(), "abilities": abilities(&format.abilities()) });
    let wrapper = |wrapper: &&dyn vmcore::Wrapper| json!({ "name": wrapper.name(), "description": wrapper.description() });
    let source = |source: &&dyn vmcore::Source| json!({ "scheme": source.scheme(), "syntax": source.syntax(), "description": source.description() });
    json!({
        "architectures": arch::all().iter().map(arch).collect::<Vec<_>>(),
        "formats": format::all().iter().map(format).collect::<Vec<_>>(),
        "wrappers": wrapper::all().iter().map(wrapper).collect::<Vec<_>>(),
        "sources": source::all().iter().map(source).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_what_is_linked_in() {
        insta::assert_snapshot!(as_text());
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = arch::all().iter().map(|arch| arch.name()).collect();
        names.extend(
            format::all().iter().flat_map(|format| variants(*format).into_iter().chain([format.name()])),
        );
        names.extend(wrapper::all().iter().map(|wrapper| wrapper.name()));
        names.extend(source::all().iter().map(|source| source.scheme()));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
    }
}
