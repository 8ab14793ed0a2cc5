//! Our verdict on GRUB scripts beside that of `grub-script-check`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use guest_files::grub_cfg::{GrubCfg, Reader};

/// What the tool complains about, `None` when it does not; an outer `None` without the tool.
fn complaint(script: &[u8]) -> Option<Option<String>> {
    let mut child = Command::new("grub-script-check")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    // The tool may stop reading at the first error.
    let _ = child.stdin.take()?.write_all(script);
    let output = child.wait_with_output().ok()?;
    Some((!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn judge(script: &[u8]) -> Option<bool> {
    complaint(script).map(|complaint| complaint.is_none())
}

fn agrees(script: &[u8], what: &str) -> bool {
    let Some(complaint) = complaint(script) else { return true };
    let theirs = complaint.is_none();
    let cfg = GrubCfg::parse_as(script, Reader::ScriptCheck);
    assert_eq!(cfg.to_bytes(), script);
    let ours = cfg.is_sound();
    let shown = script.get(..script.len().min(400)).unwrap_or_default();
    assert_eq!(ours, theirs, "{what}: {:?}\n{:?}", String::from_utf8_lossy(shown), cfg.errors().next());
    if let (Some(error), Some(complaint)) = (cfg.errors().next(), complaint) {
        let messages =
            error.messages.iter().map(|message| format!("error: {message}.\n")).collect::<String>();
        let is_fatal = messages.contains("YYLMAX");
        assert!(
            is_fatal || complaint.starts_with(&messages),
            "{what}: {:?}\n{messages}\n{complaint}",
            String::from_utf8_lossy(shown)
        );
        let rest = complaint.get(messages.len()..).unwrap_or_default();
        assert!(
            is_fatal || rest.starts_with("Syntax error at line"),
            "{what}: {:?}\n{messages}\n{complaint}",
            String::from_utf8_lossy(shown)
        );
    }
    ours
}

fn corpus() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    let path = std::env::var_os("GUESTMEND_CORPUS").map_or(default, PathBuf::from);
    path.is_dir().then_some(path)
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit
    }
}

#[test]
fn the_corpus() {
    let (Some(corpus), Some(_)) = (corpus(), judge(b"true\n")) else {
        println!("skipped: no corpus or no grub-script-check");
        return;
    };
    let mut seen = 0;
    for folder in
        ["insights-core/grub.cfg", "grubby/test", "snapd", "leapp", "insights-core/kdump.conf", "fstab"]
    {
        let Ok(entries) = std::fs::read_dir(corpus.join(folder)) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            let bytes = std::fs::read(&path).unwrap();
            if bytes.len() < 100_000 {
                agrees(&bytes, &path.display().to_string());
                seen += 1;
            }
        }
    }
    assert!(seen > 50, "{seen} files");
}

#[test]
fn small_scripts() {
    let scripts = [
        "",
        "\n",
        "# x\n",
        "true",
        "fi",
        "if true; then false; fi",
        "if true; then fi",
        "if true\nthen\nfalse\nfi\n",
        "if true; then false; else true; fi",
        "if a; then b; elif c; then d; else e; fi",
        "if a; then b\n\n\n",
        "while a; do b; done",
        "until a\ndo\nb\n\ndone",
        "for x in a b; do c; done",
        "for x in; do c; done",
        "for x\nin a; do b; done",
        "for 1 in a; do b; done",
        "for x in do; do do; done",
        "function f { a; }",
        "function f\n{\na\n}\n",
        "function f { a }",
        "function f { }",
        "function 1 { a; }\n",
        "function f { a; }\na",
        "menuentry a { b }",
        "menuentry a {\n}\n",
        "menuentry a\n{ b\n}\n",
        "menuentry a { b } c",
        "a; ; b",
        "a;;b",
        "a;",
        ";",
        "a\n;b",
        "a & b",
        "a && b",
        "a | b",
        "a > b",
        "[ a = b ]",
        "[[ a ]]",
        "[[a ]]",
        "echo [[",
        "echo ]] a",
        "case",
        "echo case esac fi done }",
        "echo case esac fi done",
        "echo $",
        "echo $ a",
        "echo \"$ a\"",
        "echo \"$\"",
        "echo ${",
        "echo ${a",
        "echo ${a}b",
        "echo ${1}$2$?$#$*$@",
        "echo ${1a}",
        "echo $1a",
        "echo '$ a'",
        "echo $\"a b\"",
        "echo $\"a $ b\"",
        "echo \"a\nb\"",
        "echo 'a\nb' c",
        "echo 'a",
        "echo \"a",
        "echo a\\",
        "echo a\\\nb",
        "echo a \\\n b",
        "\\\nfi",
        "\\\n fi",
        "echo \\\n\\\n\\\nfi\nfi",
        "echo #\n",
        "echo a#'b\n",
        "#'b\necho a",
        "echo '#\n#\n'",
        "a\r\nif a; then\r\nb\r\nfi\r\n",
        "a\0b'\nc\n",
        "echo \\'a\n",
        "echo \\\"a\n",
        "echo \"\\\\\"\n",
        "echo \"\\\"\n",
        "! a",
        "if ! a; then b; fi",
        "a=b",
        "a=\"b c\" d",
        "if a; then function f { b; }; fi",
        "{ a }",
        "a { b",
        "a { if b; then c; fi }",
        "a { b { c } }",
        "a { b {\nc\n}\n}",
        "a b { c; } ; d",
        "a { b; ; c }",
        "in",
        "do",
        "in=1",
        "select a",
        "if a; then b; fi c",
        "if a; then b; fi; c",
        "if a; then b; fi }",
        "a }",
        "}",
        "a\u{e9}\u{e9} b",
        "\"a\" b",
        "'if' a",
        "i'f' a",
        "if'' a",
        "\\if a",
        "function f { a; } b",
        "function f { a; }; function g { b; }",
        "function if { a; }",
        "if a; then\n# c\nb\n#d\nfi\n# e",
        "a \\ b",
        "a\\ b",
        "echo \"a\\\nb\"",
        "echo $\"a\\\nb\\\"c\"",
        "echo \"${a}\" \"$a$b\" \"x${a}y\"",
        "echo \"${a\"",
    ];
    let sound = scripts.iter().filter(|script| agrees(script.as_bytes(), "small")).count();
    assert!(sound > 30, "{sound}");
    for length in [8190, 8191, 8192, 8193] {
        for (before, after) in [("echo ", ""), ("echo '", "'"), ("#", "\necho a"), (" ", "a")] {
            let filler = if before == " " { " " } else { "x" };
            agrees(format!("{before}{}{after}\n", filler.repeat(length)).as_bytes(), "long");
        }
    }
}

#[test]
fn generated_scripts() {
    if judge(b"true\n").is_none() {
        println!("skipped: no grub-script-check");
        return;
    }
    let tokens: Vec<&str> =
        "if|then|else|elif|fi|for|in|do|done|while|until|function|menuentry|x|{|}|[|]|=|!|'|\"|'a b'|\
        \"a $x\"|$x|${x}|$|$?|\\|\\\n|\n|\n|\n|;|;|;;|&|#|a=b|echo|\t|\r|$\"m\"|case|esac|[[|'\n|\"\n"
            .split('|')
            .collect();
    let whole = "if [ x = x ] ; then\n  set a=\"b c\"\nelse\n  echo 'd\ne' \\\n  f\nfi\nfunction g {\n  for x in 1 2; do echo $x; done\n}\n\
        menuentry 'A' --class b {\n\tlinux /c root=\"${d}\"\n\twhile false; do g; done\n}\n";
    let pieces: Vec<&str> = whole.split_inclusive([' ', '\n']).collect();
    let run = &|seed: u64| {
        let mut random = Random(seed);
        (0..1200)
            .filter(|round| agrees(script(&mut random, *round, &tokens, &pieces).as_bytes(), "generated"))
            .count()
    };
    let sound: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..3).map(|seed| scope.spawn(move || run(seed))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(sound > 300, "{sound} sound scripts");
}

/// Tokens in any order, or a good script with a few pieces changed.
fn script(random: &mut Random, round: usize, tokens: &[&str], pieces: &[&str]) -> String {
    if round.is_multiple_of(2) {
        let mut script = String::new();
        for _ in 0..random.below(14) + 1 {
            script.push_str(tokens[random.below(tokens.len())]);
            if random.below(3) > 0 {
                script.push(' ');
            }
        }
        return script;
    }
    let mut parts: Vec<&str> = pieces.to_vec();
    for _ in 0..random.below(3) {
        let at = random.below(parts.len());
        match random.below(3) {
            0 => drop(parts.remove(at)),
            1 => parts[at] = tokens[random.below(tokens.len())],
            _ => parts.insert(at, tokens[random.below(tokens.len())]),
        }
    }
    parts.concat()
}
