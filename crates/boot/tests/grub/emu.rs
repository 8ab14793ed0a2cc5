//! Scripts run by us and by `grub-emu`: the same variables, the same errors, the same entry.
//!
//! `grub-emu` wants a terminal, which script(1) gives it, and no disk. Skipped when either is missing.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use boot::grub::{End, MemoryWorld, Platform, Release, Setup, Value, Version, run};

/// The variables at the end, and the errors on the way.
type Trace = (BTreeMap<String, String>, Vec<String>);

fn emulate(script: &str) -> Option<Trace> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("grub.cfg"), script).unwrap();
    let command = format!("timeout -k 1 20 grub-emu -d {} -m /dev/null", folder.path().display());
    let output =
        Command::new("script").args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = plain(&text);
    if !text.contains("Welcome to GRUB!") {
        return None;
    }
    let (before, after) = text.split_once("=== variables\n").unwrap_or((&text, ""));
    let variables = after.lines().take_while(|line| *line != "=== end");
    let variables = variables.filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let errors = before.lines().filter_map(|line| line.strip_prefix("error: "));
    let errors = errors.map(|error| error.strip_suffix('.').unwrap_or(error).to_owned()).collect();
    Some((variables, errors))
}

/// Without carriage returns and what steers a terminal.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\r' => {}
            '\x1b' => {
                let _ = chars.by_ref().find(char::is_ascii_alphabetic);
            }
            _ => plain.push(char),
        }
    }
    plain
}

fn interpret(script: &str) -> (Trace, boot::grub::Run) {
    let world = MemoryWorld::new().file("host", "/boot/grub/grub.cfg", script);
    let setup = Setup::new(Release::upstream(Version::V2_06), Platform::Efi, "host", "/boot/grub");
    let run = run(&world, &setup);
    let text = |value: &Value| value.text().into_owned();
    let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let variables = run.variables.iter().map(|(key, value)| (name(key), text(value))).collect();
    let errors = run.messages.iter().map(|message| message.text.clone()).collect();
    ((variables, errors), run)
}

/// What our own variables show; `set` prints theirs in quotes or not, by version.
fn compare(script: &str) -> bool {
    let script = format!("{script}\necho '=== variables'\nset\necho '=== end'\nexit\n");
    let Some((theirs, their_errors)) = emulate(&script) else { return false };
    let ((ours, our_errors), run) = interpret(&script);
    let shown = |variables: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        let counts = |name: &str| name.len() == 1 && name != "?" || name.starts_with("v_");
        // Longer ones go on in the next line of the screen.
        let plain =
            |value: &String| value.trim_matches('\'').replace(' ', "_").chars().take(40).collect::<String>();
        variables
            .iter()
            .filter(|(name, _)| counts(name))
            .map(|(name, value)| (name.clone(), plain(value)))
            .collect()
    };
    assert_eq!(shown(&ours), shown(&theirs), "{script}\n{:?}", run.end);
    assert_eq!(our_errors, their_errors, "{script}");
    true
}

#[test]
fn scripts_by_hand() {
    let scripts = [
        "x=\" a  b \"\ny=[$x]\nset z=\"[$x]\"\nfor w in $x $x; do v_w=$v_w.$w; done",
        "set y='c\\d*e?'\nset a=$y\nset b=\"$y\"\nset c=a\\ b\\*c\\\\d\nset d=\"a\\b\\\\c\\$d\\\"\"\nset e=\\x41",
        "function f { v_n=$#; a=\"$1|$2|$@|$*\"; shift; b=$1; shift 5; c=$?; return 3; d=x; }\nf 1 '2 3' 4\ne=$?\nf; f 1 2 3 4 5 6 7\n",
        "for i in 1 2 3; do if [ $i = 2 ]; then continue; fi; v_i=$v_i.$i; done\nwhile true; do for j in a b; do break 2; done; done\nset b=after",
        "if [ a -a \"\" -o b ]; then a=1; fi\nif [ ! a = b ]; then b=1; fi\nif [ ( a = b ) -o ( c = c ) ]; then c=1; fi\nif test -z \"\"; then d=1; fi",
        "if [ 010 -eq 8 ]; then a=1; fi\nif [ vmlinuz-2 -plt vmlinuz-11 ]; then b=1; fi\nif [ 0x10 -gt -3 -a z '>' a ]; then c=1; fi\nif [ 5 -ne five ]; then d=1; fi",
        "if foo; then a=1; else a=2; fi\nfoo\nb=$?\n! foo\nc=$?\nfoo bar\n",
        "! true\na=$?\n! false\nb=$?\nfalse\nc=$?\nif ! false; then d=1; fi\n!\ne=$?",
        "search --fs-uuid --set=z nosuch\na=$?\nsearch nosuch\nb=$?\nsearch --label --set nosuch\nsearch --bad x\nsearch -f -n /nosuch --set=q\nc=$?",
        "eval \"a=q; set w=5\"\neval 'for i in 1 2; do v_e=$v_e$i; done'\neval\neval 'fi'\nb=$?\neval false\nc=$?",
        "set a=1; fi\nset b=2\nif true; then set c=3; fi; set d=$\nset e=5 }\nset f=\"6\n7\"\nset g='8\n# no\n9'\nif [ \"$f$g\" = \"6\n78\n9\" ]; then set h=1; fi\nunset f\nunset g\n",
        "set\\\n a=1\nset b=\"x\\\ny\"\nset c=1 \\\n\nset d=$\"hi $a\"\nset e=$\"hi \\$a\"",
        "set a\nset =b\nunset\nunset a\nunset nosuch\nexport\n1=2\nset 2=3\na=b=c\nset ${a}x=1\n",
        "function f { for i in 1 2; do for j in a b; do return; done; done; }\nf\na=$i$j\nbreak\nb=$?\ncontinue 2\nbreak x\nc=$?\nbreak 0\nreturn\nd=$?",
        "until [ x$v_u = xaaa ]; do v_u=a$v_u; done\nwhile [ x$b != xbb ]; do b=b$b; done\nfor i in; do c=1; done\nfor i in a$nosuch \"\" \"$nosuch\" $nosuch; do v_l=\"$v_l<$i>\"; done",
        "function f { set a=$1; }\nfunction f { set b=$1; }\nf x\nfunction g { f \"$@\"; }\ng y z\nfunction true { c=1; }\ntrue\nfunction h { h2; }\nfunction h2 { d=$1; }\nh q",
        "a=1 b=2\nset c=1 d=2\n'e=5'\n\"x\"=y\n$nosuch\n\"\"\n$nosuch a=7\nf=\"a b\"c'd e'\n",
        "test\na=$?\n[ ]\nb=$?\n[\nc=$?\n[ a\nd=$?\n[ \"\" ]\ne=$?\n[ = ]\nf=$?\n[ a = ]\ng=$?\n[ ! ]\nh=$?\n[ -n ]\ni=$?\n[ -f /nosuch ]\nj=$?\n[ -d / ]\nk=$?",
        "if false; then a=1; elif false; then a=2; elif true; then a=3; else a=4; fi\nif false; then b=1; fi\nc=$?\nif true; then false; fi\nd=$?\nif [ a ]\nthen\ne=1\n\nelse\n\ne=2\nfi\n",
        "root=(hd0,1)\na=$root\nset root=hd1\nb=$root\nset root=(x)y\nc=$root",
        "setparams a b\na=$1\nfunction f { setparams x y; a=$1$2$#; }\nf q\nb=$1\n",
    ];
    let judged = scripts.iter().filter(|script| compare(script)).count();
    if judged == 0 {
        println!("skipped: no grub-emu");
        return;
    }
    assert_eq!(judged, scripts.len());
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

const WORDS: &[&str] = &[
    "a",
    "0",
    "1",
    "10",
    "x y",
    "\"$a\"",
    "$a",
    "$b",
    "${c}d",
    "'q r'",
    "\"\"",
    "$nosuch",
    "\"$1\"",
    "$@",
    "\"$*\"",
    "$#",
    "$?",
    "a\\ b",
    "'*'",
    "\\*",
    "b$a",
    "\"b c\"$a",
    "$\"t $a\"",
    "-n",
    "=",
    "!",
    "-o",
    "0x1f",
    "012",
    "vm-9",
    "vm-10",
];
const TESTS: &[&str] =
    &["=", "!=", "==", "<", "-eq", "-lt", "-ge", "-ne", "-plt", "-pgt", "-a", "-o", "'>='"];

fn command(random: &mut Random, depth: usize) -> String {
    let word = |random: &mut Random| random.pick(WORDS).to_owned();
    let block = |random: &mut Random| {
        let count = random.below(2) + 1;
        (0..count).map(|_| command(random, depth + 1)).collect::<Vec<_>>().join("; ")
    };
    let kinds = if depth > 2 { 6 } else { 12 };
    match random.below(kinds) {
        0 | 1 => format!("set {}={}", random.pick(&["a", "b", "c", "v_x"]), word(random)),
        2 => format!("v_t=$v_t.{}", word(random)),
        3 => format!("[ {} {} {} ]", word(random), random.pick(TESTS), word(random)),
        4 => random
            .pick(&[
                "true", "false", "! true", "shift", "nosuch x", "unset a", "break", "continue", "return 0",
                "return",
            ])
            .to_owned(),
        5 => format!("f {} {}", word(random), word(random)),
        6 | 7 => format!("if {}; then {}; else {}; fi", command(random, 3), block(random), block(random)),
        8 => format!(
            "if {}; then {}; elif {}; then {}; fi",
            command(random, 3),
            block(random),
            command(random, 3),
            block(random)
        ),
        9 | 10 => {
            format!("for i in {} {}; do {}; v_i=$v_i.$i; done", word(random), word(random), block(random))
        }
        _ => format!("eval '{}'", block(random).replace(['\'', '*'], "")),
    }
}

#[test]
fn generated_scripts() {
    if emulate("exit\n").is_none() {
        println!("skipped: no grub-emu");
        return;
    }
    let mut random = Random(11);
    for _ in 0..120 {
        let mut script = "function f { v_f=\"$v_g<$1|$2>\"; v_g=\"<$1|$2>\"; shift; d=$1; }\n".to_owned();
        for _ in 0..random.below(6) + 4 {
            script.push_str(&command(&mut random, 0));
            script.push_str("\nv_s=$v_s$?\n");
        }
        // A wildcard would match the host's files.
        let script = script.replace("'*'", "'+'").replace("\\*", "\\+");
        assert!(compare(&script));
    }
}

#[test]
fn defaults_and_fallbacks() {
    if emulate("exit\n").is_none() {
        println!("skipped: no grub-emu");
        return;
    }
    let menu = "menuentry 'First one' --id first { v_r=$v_r.1; false; }\n\
        menuentry 'Second > one' --id 'a>b' --class c { v_r=$v_r.2; done2 }\n\
        submenu 'More' --id more { menuentry '1st' --id m1 { v_r=$v_r.3; finish }\n menuentry 'x>y' { v_r=$v_r.4; finish }\n }\n\
        menuentry '5 gold' --id five --unrestricted { v_r=$v_r.5$1$chosen; finish\n}\n\
        menuentry 'Sixth' { v_r=$v_r.6; false\n}\n";
    let finish =
        "function finish { echo '=== variables'; set; echo '=== end'; exit; }\nfunction done2 { finish; }\n";
    let settings = [
        "",
        "set default=0",
        "set default=1",
        "set default=7",
        "set default=-1",
        "set default='First one'",
        "set default=first",
        "set default='Second >> one'",
        "set default='a>>b'",
        "set default='a>b'",
        "set default='2>0'",
        "set default='2>1'",
        "set default='More>1st'",
        "set default='more>m1'",
        "set default='More>x>>y'",
        "set default='more>nosuch'",
        "set default=2",
        "set default='5 gold'",
        "set default=five",
        "set default=3",
        "set default='3 '",
        "set default=0x1",
        "set default=01",
        "set default=nosuch",
        "set default=first\nset fallback=1",
        "set default=0\nset fallback='1 2'",
        "set default=0\nset fallback='3'",
        "set default=0\nset fallback=second",
        "set default=4\nset fallback=1",
        "set default=''",
        "set default=0\nset fallback='0 0 1'",
    ];
    let mut judged = 0;
    for setting in settings {
        // An entry that leads to no end would wait for a key.
        let guard = "menuentry last { finish }\n";
        let script = format!("{finish}set timeout=0\n{setting}\n{menu}{guard}");
        let ((ours, our_errors), run) = interpret(&script);
        if !matches!(run.end, End::Exit) {
            continue;
        }
        let (theirs, their_errors) = emulate(&script).unwrap();
        let value = |variables: &BTreeMap<String, String>| {
            variables.get("v_r").map(|value| value.trim_matches('\'').to_owned())
        };
        assert_eq!(value(&ours), value(&theirs), "{setting}");
        assert_eq!(our_errors, their_errors, "{setting}");
        judged += 1;
    }
    assert!(judged >= 20, "{judged}");
}
