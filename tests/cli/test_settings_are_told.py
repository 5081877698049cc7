"""What is wrong with a setting is said with the place that sets it."""


def test_a_bad_value_names_the_variable(crab):
    done = crab("doctor", "--json", env={"CRAB_OBSERVER": "bogus"})
    assert done.code == 2
    assert done.error["message"] == "observer is 'bogus'"
    assert done.error["where"] == "CRAB_OBSERVER"
    assert done.error["hint"] == "one of: auto, scan, fanotify"


def test_a_bad_value_names_the_file_and_line(crab, workspace, tmp_path):
    file = workspace / "crab.toml"
    file.write_text('name = "x"\nobserver = "bogus"\n')
    assert crab("doctor", "--json").error["where"] == f"{file}:2"
    file.write_text('\nregenerable = "skip"\n')
    error = crab("doctor", "--json").error
    assert error["where"] == f"{file}:2"
    assert "CRAB_" not in error["hint"]
    file.unlink()
    own = tmp_path / "config" / "crabrt" / "config.toml"
    own.parent.mkdir(parents=True)
    own.write_text('on_divergence = "perhaps"\n')
    for line in (["doctor"], ["runs"]):
        assert crab(*line, "--json").error["where"] == f"{own}:1"


def test_the_doctor_shows_variables_that_do_nothing(crab):
    env = {"CRAB_OBSERVR": "scan", "CRAB_XYZZY": "1"}
    done = crab("doctor", "--quick", "--json", env=env)
    (fact,) = [fact for fact in done.data["facts"] if fact["name"] == "variables"]
    assert fact["standing"] == "limited"
    assert fact["seen"] == "CRAB_OBSERVR, CRAB_XYZZY set in the environment"
    assert fact["hint"] == "CRAB_OBSERVER instead of CRAB_OBSERVR?"
    names = {fact["name"] for fact in crab("doctor", "--quick", "--json").data["facts"]}
    assert "variables" not in names
