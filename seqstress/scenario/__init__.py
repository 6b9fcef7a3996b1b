"""Scenarios: YAML files that say what to send, to which model, and what to make of the outcome."""

from seqstress.scenario.loading import load_scenario, parse_scenario
from seqstress.scenario.model import Scenario, scenario_schema
from seqstress.scenario.several import ScenarioListError

__all__ = ["Scenario", "ScenarioListError", "load_scenario", "parse_scenario", "scenario_schema"]
