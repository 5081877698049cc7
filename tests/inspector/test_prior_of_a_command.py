"""What a shell command is taken for before it runs: a table of commands, each with its class."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crabrt.core.verdicts import Likely
from crabrt.inspector import shell
from crabrt.inspector.priors_scripts import guess_all, guess_command
from crabrt.inspector.priors_words import Place

HERE = Place("/home/me/project")

NONE = """
ls -la
ls && cat README.md | head -20
cd src; grep -rn 'def main' . | sort | uniq -c
FOO=1 ls
git status; git diff HEAD~1 -- a.py
git --no-pager log --oneline -5
git -C sub show HEAD:a.py
git -c core.pager=cat branch
git branch -vv
git stash list
git remote -v
git config --get user.email
git config user.email
git tag
find . -name '*.py' -exec grep -l foo {} +
find . -type f | xargs wc -l
sed -n '10,20p' a.py
sed 's/a/b/' a.py | diff - a.py
awk '{print $1}' data
awk '$1 > 5 {print $2}' data
echo done > /dev/null 2>&1
ls 2>&1 | tee /dev/stderr
echo x > /tmp/elsewhere
rm -rf /tmp/elsewhere
cp a.py /tmp/b.py
tar tzf a.tgz
sort a b
timeout 5 grep x y
time ls
env LC_ALL=C sort a
sudo -u nobody cat a
bash -c 'ls; pwd'
sh -ec "cat 'a b'"
eval 'ls'
for f in *.py; do echo "$f"; done
if [ -f a ]; then cat a; else echo no; fi
while read -r line; do echo "$line"; done < a
[[ -n $x && -d y ]] && ls
(( i++ )); echo $((1 & 2))
show() { cat "$1"; }; show a
cat <<< "hello"
python3 --version
python -m json.tool a.json
pip list
npm ls
kubectl get pods
gh pr view 3
aws s3 ls
aws --region eu-west-1 ec2 describe-instances --filters x
aws lambda get-function --function-name push-orders
aws s3 help
gcloud compute instances list
gcloud --project p iam service-accounts keys list
gcloud config get-value project
az vm list -d
az storage account show --name delete-me
gsutil -m ls gs://b
gsutil iam get gs://b
gh -R a/b pr view 3
gh --version
kubectl --kubeconfig k get pods
systemctl --user status apply
npm --silent ls
git submodule --quiet status
make -n
make -C sub -n
unzip -l -d plots a.zip
python3 -W ignore --version
/usr/bin/ls
command -v python
diff <(ls a) <(ls b)
unzip -l a.zip
crontab -l
""".strip().splitlines()

FILES = """
touch a
rm a
mv a b
cp /etc/hosts .
mkdir -p build
echo x > a
echo x >> sub/a
ls &> listing
ls >| listing
ls | tee listing
echo $(rm a)
echo "${x:-$(rm a)}"
cat a > "$OUT"
sed -i s/a/b/ a.py
sed -Ei.bak s/a/b/ a.py
find . -name '*.pyc' -delete
find . -exec rm {} \\;
find . -name x -print0 | xargs -0 rm
sort -o a a
bash -c 'rm a'
sh -c "bash -c 'rm a'"
eval "rm a"
git add -A && git commit -m x
git checkout -b x
git branch x
git stash
git config user.name me
git clone https://example.org/r.git
pip install requests
npm ci
apt-get install -y jq
cargo build
tar xzf a.tgz
tar -cfout.tar src
unzip -dout/plots a.zip
sort -uo a a
cp -at . /tmp/x
cp --target-directory=. /tmp/x
git stash push -m list
git stash push list
git remote add show https://example.org/r.git
git worktree add list
git config user.name get
ruff --no-cache format check
gh release download v1
python -Im venv .venv
gcc -c a.c
ruff check .
patch -p1 < a.diff
dd if=a of=b
awk -i inplace '{print}' a
truncate -s 0 /home/me/project/a
rm /home/me/project/../project/a
rm /home/me
env -u X rm a
nice -n 5 rm a
chmod +x a
ln -s a b
if true; then rm a; fi
f() { rm a; }; f
python -m venv .venv
""".strip().splitlines()

EXTERNAL = """
git push
git push origin main --tags
cd a && git -C b push || true
bash -c 'git push'
bash -lc "cd x && git push"
echo $(git push)
make && git push
$UNKNOWN; git push
curl https://example.org
curl -o a "$URL"
curl -X POST -d @a https://example.org/hook
wget -q https://example.org/a
ssh host ls
scp a host:b
rsync -a a host:b
npm publish
cargo publish
twine upload dist/*
docker push me/image
kubectl apply -f a.yml
terraform apply
gh pr create --fill
gh api -X POST repos/a/b/issues
aws s3 cp a s3://b
aws lambda invoke --function-name get-orders out.json
aws lambda --function-name get-orders invoke
aws --unknown list s3 rm s3://b/a
aws s3 cp get-pip.py s3://b/
aws s3 rm s3://b/a --recursive
aws configure set get-x y
gcloud functions call get-orders
gcloud compute instances delete list-1
gcloud storage cp list-a gs://b
gcloud compute ssh list
az vm run-command invoke --command-id show
az rest --method get
gsutil cp list-a gs://b
gsutil -h Cache-Control:x cp a gs://b
gsutil acl set get gs://b
gh --unknown view pr close
kubectl --unknown get delete pod x
kubectl --cluster get delete pod x
npm --unknown view publish
npm -w info publish
curl https://localhost.run/a
curl localhost.example.org
curl http://127.0.0.1.nip.io
curl http://0.0.0.0.example.org/
curl http://localhost@example.org/
curl http://localhost:80@example.org/
curl http://example.org/@localhost
curl http://example.org/http://localhost
curl localhost https://example.org
psql -h db.example.org -c 'delete from t'
psql -tAhdb -c 'select 1'
psql --host=db -c 'select 1'
psql --host db
psql postgres://me:word@db.example.org:5432/t
psql -d 'host=db.example.org dbname=t'
psql 'postgresql:///t?host=db'
psql service=prod
psql "$DATABASE_URL"
psql -h "$HOST"
psql postgres://localhost,db/t
PGHOST=db psql t
PGHOST=localhost.run psql t
PGHOST=$DB psql t
export PGHOST=db; psql t
redis-cli -h cache.example.org incr a
redis-cli --user me -h cache.example.org incr a
redis-cli -u redis://:word@cache:6379/0 get a
redis-cli --cluster info cache:6379
mysql -uroot -pword -hdb t
mysql -p -h db t
mysqldump --host=db t
mongosh mongodb://db/t
mongosh mongodb+srv://localhost/t
mongosh db.example.org/t
sudo ssh host
xargs -n1 curl < urls
echo x > /dev/tcp/example.org/80
find . -name '*.whl' -exec twine upload {} +
for h in a b; do ssh $h uptime; done
if ( git push
env A=1 nohup git push
git lfs push origin main
""".strip().splitlines()

PROCESSES = """
sleep 100 &
(sleep 100 &)
for i in 1 2; do sleep $i & done
sleep 1 & wait
kill 123
pkill -f server
systemctl restart nginx
docker run -d redis
setsid sleep 5
tmux new -d
coproc cat
""".strip().splitlines()

UNKNOWN = """
make
pytest -q
python a.py
python -c 'print(1)'
node index.js
npm test
./run.sh
bash run.sh
source env.sh
. env.sh
frobnicate
$CMD a
"$EDITOR" a
eval "$x"
bash -c "$x"
PATH=. ls
alias ls=rm
sudo -i
git $x
git frob
git submodule foreach rm a
git rebase -x make main
curl http://localhost:8000
curl 127.0.0.1:80/x
curl http://LOCALHOST:8000/@x
curl http://user:word@127.1/?q=a@b
curl 'http://[::1]:8000/x'
wget -qO- 0.0.0.0:8000
redis-cli -p 18217 incr a
redis-cli -p $PORT incr a
redis-cli -h 127.0.0.1 incr a
redis-cli -u redis://:word@localhost:6379/0 get a
psql -c 'delete from t'
psql -h /var/run/postgresql -U me t
psql -h localhost -p "$PORT" -d postgres -qAt -c "$1"
psql postgres:///t
psql postgres://me@127.0.0.1:5432/t
psql 'dbname=t user=me'
PGHOST=localhost psql t
PGPASSWORD=word psql t
mysql -uroot -phunter2 -e 'drop table t' t
mysqldump t
mongosh t --eval 'db.a.drop()'
mongosh localhost:27017/t a.js
python load.py --version
python load.py -h db.example.org
python load.py -m json.tool
make -Iinclude
make -Csrc/unit
git submodule --quiet foreach ls
/opt/a/bin/../../../home/me/bin/ls
rm a; make
cat a | bash
ls ((
'unclosed
sed -f script a
sed 's/a/b/w out' a
awk '{print > "out"}' a
awk '{system("rm a")}' a
rg --pre ./x y
python - < a.py
xargs $CMD
/home/me/bin/ls
./ls
""".strip().splitlines()

HERE_DOCUMENTS = [
    ("cat > a <<'EOF'\nrm x; git push $(git push)\nEOF", Likely.FILES),
    ("cat <<EOF\n$(git push)\nEOF", Likely.EXTERNAL),
    ("bash <<'EOF'\ngit push\nEOF", Likely.EXTERNAL),
    ("bash <<EOF\nls\nEOF", Likely.NONE),
    ("bash <<EOF\n$x\nEOF", Likely.UNKNOWN),
    ("python <<'EOF'\nprint(1)\nEOF", Likely.UNKNOWN),
    ("cat <<'EOF' | tee a\nx\nEOF", Likely.FILES),
    ("bash <<< 'rm a'", Likely.FILES),
]

TABLE = [
    *((command, Likely.NONE) for command in NONE),
    *((command, Likely.FILES) for command in FILES),
    *((command, Likely.EXTERNAL) for command in EXTERNAL),
    *((command, Likely.PROCESSES) for command in PROCESSES),
    *((command, Likely.UNKNOWN) for command in UNKNOWN),
    *HERE_DOCUMENTS,
]


@pytest.mark.parametrize(("command", "effect"), TABLE)
def test_a_command_is_taken_for_what_it_is(command, effect):
    assert guess_command(command, HERE).effect is effect, guess_command(command, HERE)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("ls | grep x; cat y", "reads only: ls, grep, cat"),
        ("git push", "git push: leaves the machine"),
        ("sleep 9 &", "runs in the background: &"),
        ("echo > a; sed -i x b", "writes a; sed -i: writes files"),
        ("pytest", "pytest: runs code"),
        ("frob", "frob: not known"),
        ("", "nothing to run"),
        ("rm a; > b; > c; > d", "writes b; writes c; writes d; 1 more"),
    ],
)  # fmt: skip
def test_the_reason_can_be_read(command, reason):
    assert guess_command(command, HERE).reason == reason


def test_without_a_known_workspace_every_path_may_be_in_it():
    assert guess_command("rm /tmp/a").effect is Likely.FILES
    assert guess_command("rm /dev/null").effect is Likely.NONE


def argv(words, place):
    return guess_all([words], place)


def test_the_words_of_a_program_are_no_shell():
    assert argv(["echo", "a > b; git push"], HERE).effect is Likely.NONE
    assert argv(["git", "push"], HERE).effect is Likely.EXTERNAL
    assert argv(["bash", "-c", "git push"], HERE).effect is Likely.EXTERNAL
    assert argv([], HERE).effect is Likely.NONE


def test_without_the_grammar_a_command_is_unknown(monkeypatch):
    monkeypatch.setattr(shell, "_language", lambda: None)
    assert not shell.available()
    found = guess_command("git push", HERE)
    assert (found.effect, found.reason) == (Likely.UNKNOWN, "no shell grammar is installed")


@pytest.mark.parametrize(
    "text",
    [
        "a | " * 20_000,
        "$(" * 30_000,
        "x " * 30_000,
        "<<a " * 16_000,
        "x" * (shell.MAX_BYTES + 1),
        "bash -c " * 5_000,
    ],
    ids=["bars", "substitutions", "words", "here-documents", "long", "shells"],
)
def test_text_that_would_take_long_is_unknown(text):
    assert guess_command(text, HERE).effect is Likely.UNKNOWN


def test_shells_in_shells_end_somewhere():
    command = "git push"
    for _ in range(12):
        command = "eval '" + command.replace("'", "'\\''") + "'"
    assert guess_command(command, HERE).effect is Likely.UNKNOWN
    assert guess_command("sudo " * 900 + "git push", HERE).effect is Likely.UNKNOWN
    assert guess_command("sudo " * 9 + "git push", HERE).effect is Likely.EXTERNAL


PIECES = st.sampled_from(
    """git push rm ls sudo xargs env bash -c eval find -exec -delete sed -i > >> | & && || ; ( ) {
    } $( ` " ' $ ${ } [[ ]] << EOF <<< \n \\ # if then fi for in do done case esac function = -- -o
    tar curl localhost timeout 5 -n awk sort dd of= tee cp -t python -m pip install /tmp ../x \x00
    \udc80 ü""".replace("    ", "").split(" ")
)


@given(st.lists(PIECES).map(" ".join))
@example("coproc")
@example("sudo -u")
@example("env -u")
@example("tar")
@example("bash -o")
@example("find -exec")
def test_any_text_gets_a_guess_that_can_be_kept(text):
    found = guess_command(text, HERE)
    assert found.effect in Likely
    assert found.reason.encode()
    assert len(found.reason) < 1_000


@given(st.binary(max_size=300))
@example(b"\x00")
@example(b"\xff\xfe$(\x80")
def test_any_bytes_can_be_parsed(data):
    script = shell.parse(data)
    assert script is not None
    assert all(word is None or isinstance(word, str) for c in script.commands for word in c.words)


@given(st.lists(st.sampled_from(NONE + FILES + PROCESSES + UNKNOWN), max_size=4))
def test_what_leaves_the_machine_is_found_among_whatever_else(commands):
    text = "\n".join([*(c for c in commands if "unclosed" not in c and "((" not in c), "git push"])
    assert guess_command(text, HERE).effect is Likely.EXTERNAL


WORDS = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30)


@given(st.lists(WORDS, min_size=1, max_size=4))
def test_quoted_words_are_read_as_the_shell_reads_them(words):
    text = "printf " + " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
    script = shell.parse(text.encode())
    assert script is not None
    assert script.commands[0].words == ("printf", *words)
