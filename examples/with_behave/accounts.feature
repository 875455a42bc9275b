Feature: Accounts
  The server enforces its own constraints.

  Scenario: A balance is kept
    Given an account of alice with 10
    When alice pays 3
    Then alice has 7

  Scenario: A balance is never negative
    Given an account of bob with 10
    When bob pays 11
    Then the server refuses it
    And bob has 10
